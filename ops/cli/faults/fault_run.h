// One run of a fault schedule on a real cluster: the job submitted or found, each fault injected at
// its moment, what readers are told watched, and all of it gathered into a history for the checks.
//
//   submit / attach -> watch + inject -> settle (bound) -> read again -> compare
//
// Every wait is bounded: an order that cannot be given is given up after kInjectWithin, the job has
// `bound` to go on after the last fault, the whole has `deadline`, and a coordinator that is away
// is waited for kWatchPatience. Whatever ends the run, FaultUndo takes back what still lasts.
//
// Threads: one; FaultUndo may be used from another. Errors: usage and refusals before anything is
// broken; unavailable when the coordinator stays away. What is found broken is no error, but in the
// history.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "ops/cli/client/progress_writer.h"
#include "ops/cli/faults/fault_watch.h"
#include "ops/cli/faults/injection.h"
#include "ops/cli/faults/schedule.h"

namespace tutti::cli {

inline constexpr std::chrono::seconds kInjectWithin{30};
// Steps, or else time, after which a job counts as going on.
inline constexpr std::uint64_t kStepsAfter = 5;
inline constexpr std::chrono::seconds kCalmAfter{2};

// What is known before anything is done: the job's spec, its size and the cluster's nodes.
struct FaultSetup {
  FaultFile file;
  std::uint64_t seed = 0;
  std::optional<spec::JobSpec> spec;
  std::uint64_t job = 0;  // of one that runs; 0: the spec is submitted
  std::vector<PlannedFault> schedule;
};

class FaultRun {
 public:
  FaultRun(Api& api, Session& session, FaultUndo& undo, const FaultSetup& setup);

  Result<> run();
  const FaultHistory& history() const { return history_; }

 private:
  Result<> check_cluster();
  Result<> submit();
  Result<> watch_and_inject();
  Result<> tick();
  void note_start();
  void end_due();
  Result<> inject_due();
  Result<> inject(InjectedFault& fault);
  bool is_due(const InjectedFault& fault) const;
  bool all_over() const;
  bool is_finished();
  void settle_missed(std::string_view why);
  void repeat_submit();
  Result<> settle();
  std::string next_text() const;
  std::chrono::milliseconds left() const;

  Api& api_;
  Session& session_;
  FaultUndo& undo_;
  FaultHistory history_;
  FaultWatch watch_;
  std::string key_;
  Progress progress_;
  ProgressWriter writer_;
  Instant deadline_{};
  std::optional<Instant> began_;     // first seen running
  std::optional<Instant> all_over_;  // the last fault was over
  std::uint64_t step_then_ = 0;
  std::map<std::size_t, Instant> due_since_;  // by place in faults: orders that were not taken
  std::map<std::size_t, Instant> lasts_until_;
  std::size_t coordinator_away_ = 0;  // place + 1 of the fault that killed it; 0: it is there
  Instant coordinator_killed_{};
};

}  // namespace tutti::cli
