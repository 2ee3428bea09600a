// What the API shows of jobs and nodes: copies, made on request, of durable and soft state
// together.
//
// Units: as named; times of day in UTC milliseconds, 0 where it has not happened.
#pragma once

#include <boost/describe/class.hpp>
#include <boost/describe/enum.hpp>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/cluster/cluster_records.h"
#include "protocol/base/ids.h"

namespace tutti::coordinator {

// Of an array: how many of its tasks are where.
struct TaskCounts {
  std::uint32_t waiting = 0;
  std::uint32_t active = 0;
  std::uint32_t done = 0;
  std::uint32_t failed = 0;
  std::uint32_t cancelled = 0;

  std::uint32_t total() const { return waiting + active + done + failed + cancelled; }
};

// What has been charged to whom, and how much each may be; none of them uses up another's.
struct Budgets {
  std::uint32_t user = 0;
  std::uint32_t user_max = 0;  // retries.user: one more ends the job
  std::uint32_t infrastructure = 0;
  std::uint32_t infrastructure_max = 0;
  std::uint32_t own = 0;  // in a row at one step: Tutti's own
  std::uint32_t own_max = 0;
  std::uint32_t preempted = 0;
  std::uint32_t preempted_max = 0;  // then nobody preempts it any more; 0: no limit
  std::uint32_t drained = 0;
  std::uint32_t resized = 0;
};

struct JobSummary {
  JobId job;
  std::string name;
  std::string kind;
  std::string owner;
  JobState state = JobState::queued;
  Generation generation;
  std::uint32_t ranks = 0;  // of the newest generation; 0 before the first
  std::uint32_t restarts = 0;
  std::uint64_t step = 0;                 // newest committed one
  std::uint64_t steps = 0;                // the last one, 0 if there are none
  std::optional<std::int32_t> exit_code;  // once terminal
  std::int32_t priority = 0;
  TaskCounts tasks;  // of an array
  std::int64_t submitted_unix_ms = 0;
  std::int64_t started_unix_ms = 0;
  std::int64_t ended_unix_ms = 0;
  std::uint64_t memory_peak_bytes =
      0;                     // the largest of its processes that have ended; 0: not known
  std::uint64_t cpu_ms = 0;  // of all of them
  Budgets budgets = {};
};

// Which jobs a reader wants; what is empty asks for nothing.
struct JobFilter {
  JobId after;                   // only those of greater numbers
  std::size_t limit = SIZE_MAX;  // at most so many
  bool newest = false;           // the last `limit` instead of the first; by number all the same
  std::vector<JobState> states;
  std::string owner = {};
  std::string name = {};
  // These are looked for as jobs that are stopping, however they ended; null: there are none.
  const std::map<JobId, JobState>* stopping = nullptr;
};

struct JobPage {
  std::vector<JobSummary> jobs;
  bool more = false;  // there are others that the limit left out
};

struct ProcessView {
  ProcessId process;
  JobId job;
  Generation generation;
  std::uint32_t rank = 0;
  std::string worker;
  std::uint32_t slot = 0;
  std::int64_t pid = 0;
  std::string phase;  // of its progress reports; else what the coordinator knows
  std::uint64_t step = 0;
  std::uint64_t collective = 0;
  double straggler = 0;     // its time for a shard of a step over the median rank's; 0: not known
  std::string limits = {};  // what holds it to its share: "cgroup2: memory 2 GiB"; empty: nothing
  // Of its job's gang now; else it is lost, or is leaving, or begins beside the one it replaces.
  bool member = false;
};

inline constexpr std::size_t kTasksListed = 100;

struct TaskView {
  std::uint32_t index = 0;
  JobId job;  // whose logs, events and cancel are the task's
  TaskState state = TaskState::waiting;
  std::string phase;  // active: the state of its job
  std::optional<std::int32_t> exit_code;
  std::string message;
  std::optional<std::int32_t> code = std::nullopt;  // of its program, as in Outcome
  std::optional<std::int32_t> signal = std::nullopt;
};

struct JobDetail {
  JobSummary summary;
  std::string spec;  // resolved, YAML
  std::string folder;
  std::vector<CommittedCheckpoint> checkpoints;
  std::vector<Recovery> recoveries;
  Outcome outcome;      // meaningful once terminal or stopping
  std::string waiting;  // what it waits for, if queued or recovering
  std::vector<ProcessView> processes;
  // Of an array, by index: those that are active or did not end well, the first kTasksListed. All
  // of them: ClusterState::tasks.
  std::vector<TaskView> tasks;
  std::string standstill = {};  // whom the other ranks wait for at this moment, if anybody
  ReleaseRecord release = {};   // that it is asked to leave its slots
};

// Why a job is where it is, and what has to happen next.
// -------------------------------------------------------------------------------------------------

BOOST_DEFINE_ENUM_CLASS(ExplainReason, running, ended, begin, dependency, backoff, quota_running,
                        quota_slots, at_once, never_fits, only_beside_servers, fenced, behind, room,
                        disk, starting, now)

// Somebody who holds what the job could use.
struct ExplainHolder {
  JobId job;
  std::string name;
  std::string owner;
  std::int32_t priority = 0;
  std::uint32_t slots = 0;                   // that would suit the job
  std::optional<std::int64_t> ends_unix_ms;  // at the latest, by limit.time
  bool endless = false;                      // a serve job
};

struct ExplainWorker {
  std::string worker;
  std::uint32_t ranks = 0;  // of the job that fit there now
  std::string why;          // why not more
};

// What waiting and fair share do to a job's place in the queue.
struct ExplainTurn {
  std::int64_t waited_ms = 0;
  bool overdue = false;  // it has waited a day: only who has waited longer goes before it
  std::optional<std::int64_t> overdue_unix_ms;  // when it will have
  std::uint32_t passes = 0;                     // of those before it now, then
  std::uint32_t passes_of = 0;                  // that were looked at: the first so many before it
  std::int64_t fair_delay_ms = 0;               // its turn comes so much later
  // Who is behind it now and will have waited a day sooner.
  JobId passed_by;
  std::optional<std::int64_t> passed_unix_ms;
};

struct Explanation {
  JobId job;  // none: one that was asked about before its submit
  JobState state = JobState::queued;
  ExplainReason reason = ExplainReason::running;
  std::string summary;  // one line
  // Queue
  std::uint32_t position = 0;   // 1: the next one; 0: not in the queue (yet)
  std::vector<JobId> ahead;     // the first kExplainListed of those before it
  ExplainTurn turn;             // where it has a position
  std::uint32_t ranks_min = 0;  // wanted
  std::uint32_t ranks_max = 0;
  // Room
  std::uint32_t ranks_free = 0;        // that would fit now
  std::uint32_t ranks_possible = 0;    // that would fit if nothing else ran
  std::vector<std::string> missing;    // "2 slots", "label zone=a", "3 GiB of memory on one worker"
  std::vector<ExplainHolder> holders;  // who ends first, first; at most 1,000
  std::vector<JobId> must_end;         // these have to, if nothing else ends before them
  // It starts by then if limits are used up; behind others: about then (explain.cc).
  std::optional<std::int64_t> earliest_unix_ms;
  std::vector<JobId> preempts;         // are asked to make room for it
  std::vector<ExplainWorker> workers;  // that do not suit, or have no room
  std::uint32_t workers_left_out = 0;
  std::vector<std::string> lines;  // all of it for people, the same for the same state
};

struct NodeView {
  std::string name;
  std::string host;
  // ready | suspect | lost | expected (not seen since the coordinator started) | draining | drained
  // | quarantined (set aside: it works, and gets no new work)
  std::string state;
  std::uint32_t slots = 0;
  std::uint32_t free_slots = 0;
  std::uint32_t cores = 0;
  std::uint64_t memory_bytes = 0;
  std::string cpu;
  std::string version;
  std::vector<std::string> labels = {};  // key=value
  std::string limits = {};               // how ranks are held to theirs: cgroup2 | cgroup1 | rlimit
  std::vector<std::string> profiles = {};          // numerics profiles that its ranks can run
  std::vector<wire::DeviceState> devices = {};     // by slot; empty: the CPU
  std::string device_stack = {};                   // versions of what drives them
  std::vector<wire::DeviceReading> readings = {};  // of the devices, while it is connected
  std::vector<ProcessView> processes;
  Drain drain = {};
  std::string score = {};         // what it is blamed for; empty: nothing
  std::uint32_t score_users = 0;  // of how many users
  std::uint32_t score_losses = 0;
  std::string drain_ends = {};  // what does; empty: it is not drained
};

// How much is remembered that is not durable: no more than of what lives (I19).
struct SoftSizes {
  // Of processes that hold a slot.
  std::size_t processes = 0;
  std::size_t lined_up = 0;
  // Of jobs that have not ended: at most each of these.
  std::size_t jobs = 0;
  std::size_t job_dues = 0;
  // The same, but kept by the pass (scheduler/board.h): of who has ended until the next one.
  std::size_t counted = 0;
  std::size_t users = 0;
  std::size_t queued = 0;
  std::size_t interrupted = 0;
  std::size_t growing = 0;
  std::size_t ends = 0;
  std::size_t preemptible = 0;
  std::size_t dependents = 0;
  // Of workers that are members, or may come back.
  std::size_t links = 0;
  std::size_t peers = 0;
  std::size_t link_dues = 0;
};
BOOST_DESCRIBE_STRUCT(SoftSizes, (),
                      (processes, lined_up, jobs, job_dues, counted, users, queued, interrupted,
                       growing, ends, preemptible, dependents, links, peers, link_dues))

struct ClusterCounters {
  std::uint64_t stale_frames = 0;   // of an old session or unknown peer
  std::uint64_t stale_reports = 0;  // of an old generation or an unknown process
  std::uint64_t refused_hellos = 0;
  std::uint64_t recoveries = 0;
  std::uint64_t workers_lost = 0;
  std::uint64_t preemptions = 0;
  std::uint64_t drains = 0;
  std::uint64_t resizes = 0;
  std::uint64_t hangs = 0;
  std::uint64_t quarantines = 0;         // for failures of several users' jobs
  std::uint64_t quarantines_lost = 0;    // for losses
  std::uint64_t keys_kept = 0;           // of submits whose jobs are forgotten
  std::uint64_t keys_dropped_early = 0;  // for want of room, before their time was over
};

}  // namespace tutti::coordinator
