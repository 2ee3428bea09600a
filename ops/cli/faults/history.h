// What one run of a fault schedule saw: the faults, what readers were told while it went on, and
// what the cluster says at the end. The checks judge it, and know nothing else.
//
// Pure data. Times are the coordinator's, in UTC milliseconds: those of this machine are moved by
// the difference that was measured at the beginning.
#pragma once

#include <boost/json/value.hpp>

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "ops/cli/faults/schedule.h"
#include "protocol/spec/job_spec.h"

namespace tutti::cli {

enum class InjectionOutcome {
  waiting,   // its moment has not come
  injected,  // the order was taken
  missed     // it could not be given; `why` says it
};

struct InjectedFault {
  PlannedFault plan;
  InjectionOutcome outcome = InjectionOutcome::waiting;
  std::string whom;  // as it came out: a rank of those that ran then
  std::string why;
  std::int64_t unix_ms = 0;
  std::int64_t over_unix_ms = 0;  // of one that lasts: when it had ended; 0: not yet
  std::uint64_t step = 0;         // the job's newest then
  std::uint32_t orders = 0;       // more than one where an answer was lost on its way
  std::int64_t away_ms = -1;      // of the coordinator: until it answered again
};

struct StepSeen {
  std::uint64_t step = 0;
  std::uint64_t generation = 0;
  std::uint64_t ranks = 0;
  std::uint64_t tokens = 0;
  std::string weights;

  bool operator==(const StepSeen&) const = default;
};

struct EventSeen {
  std::uint64_t seq = 0;
  std::int64_t unix_ms = 0;
  std::uint64_t job = 0;
  std::string kind;
  std::string message;
  std::uint64_t generation = 0;

  bool operator==(const EventSeen&) const = default;
};

struct RecoverySeen {
  std::uint64_t generation = 0;
  std::string cause;
  std::int64_t seen_unix_ms = 0;
  std::int64_t first_step_ms = -1;  // since it was seen; -1: not reached
  std::uint64_t lost_steps = 0;
  bool planned = false;  // a resize, a drain: nothing failed
};

struct Charges {
  std::uint64_t user = 0;
  std::uint64_t infrastructure = 0;
  std::uint64_t own = 0;

  bool operator==(const Charges&) const = default;
};

struct JobSeen {
  std::uint64_t id = 0;
  std::string state;
  std::uint64_t generation = 0;
  std::uint64_t step = 0;
  std::int64_t exit_code = -1;  // -1: it has not ended
  std::string failure;          // whose, and what: empty if nobody's
  std::string failure_class;
  Charges charges;
  std::vector<RecoverySeen> recoveries;
  std::vector<std::uint64_t> checkpoints;
};

// Bytes of output by process.
struct LogSeen {
  std::map<std::uint64_t, std::string> text;
  std::uint64_t gap_bytes = 0;
};

// One look at a node.
struct NodeSeen {
  std::string name;
  std::uint64_t slots = 0;
  std::uint64_t free = 0;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> held;  // slot, process

  auto operator<=>(const NodeSeen&) const = default;
};

struct CheckpointSeen {
  std::uint64_t step = 0;
  std::string problem;  // empty: it is whole
};

// The job's record as a replay of the ledger gives it.
struct LedgerSeen {
  std::string problem;  // why there is none
  bool damaged = false;
  std::string state;
  std::uint64_t generation = 0;
  Charges charges;
  std::vector<std::uint64_t> checkpoints;
  std::uint64_t last_event = 0;
};

// What the weights are compared with.
struct ReferenceSeen {
  std::string why_not;  // none was asked for, or there is nothing to compare
  std::string problem;  // it was asked for and could not be made
  std::uint64_t job = 0;
  std::string state;
  std::uint64_t first = 0;  // steps that are compared
  std::uint64_t last = 0;
  std::map<std::uint64_t, std::string> weights;
};

struct StateSeen {
  std::string state;
  std::uint64_t generation = 0;

  bool operator==(const StateSeen&) const = default;
};

struct FaultHistory {
  FaultFile file;
  std::uint64_t seed = 0;
  std::optional<spec::JobSpec> spec;
  bool submitted = false;      // by this run
  std::uint64_t repeated = 0;  // the id that the submit's key gives at the end; 0: not asked
  std::string accepted_spec;   // as it was sent; empty: attached
  std::string kept_spec;       // as the cluster has it

  std::vector<InjectedFault> faults;
  std::vector<StateSeen> states;  // each change that was seen
  JobSeen job;

  std::vector<EventSeen> events_live;  // of the whole cluster, as they came
  std::vector<EventSeen> events;       // the same, read at the end
  std::vector<StepSeen> steps_live;
  std::vector<StepSeen> steps;
  LogSeen log_live;
  LogSeen log;
  LogSeen log_resumed;       // read again, from a cursor in the middle on
  std::set<NodeSeen> nodes;  // every different look
  std::uint64_t node_looks = 0;

  std::uint64_t answered = 0;  // requests, also with an error that says what is wrong
  std::string unanswered;      // the first that was not

  std::optional<std::int64_t> recovered_ms;  // after the last fault
  std::int64_t end_unix_ms = 0;              // of the run
  std::vector<std::int64_t> left;            // processes of the job that still are there
  bool left_known = false;                   // whether it is over, so that there may be none
  std::vector<CheckpointSeen> checkpoints;
  std::string checkpoints_unseen;  // why they were not looked at
  LedgerSeen ledger;
  ReferenceSeen reference;
};

// From the API's JSON, tolerantly.
StepSeen step_seen(const boost::json::value& record);
EventSeen event_seen(const boost::json::value& event);
JobSeen job_seen(const boost::json::value& job);
NodeSeen node_seen(const boost::json::value& node);
void add_log(LogSeen& log, const boost::json::value& chunk);

// Bytes of a process's output that are kept for comparison.
inline constexpr std::size_t kLogBytesCompared = 1 << 20;

// Whether the fault is one that can cost the job a rank, and was injected.
bool may_lose_ranks(const InjectedFault& fault);

// Whether the recovery may have been made necessary by the fault.
bool explains(const InjectedFault& fault, const RecoverySeen& recovery, std::int64_t end_unix_ms);

// The recovery that followed each fault: its place in job.recoveries, or nothing. Several faults
// that fall into one have the same.
std::vector<std::optional<std::size_t>> recoveries_of_faults(const FaultHistory& history);

}  // namespace tutti::cli
