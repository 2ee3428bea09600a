#include "coordinator/cluster_meter.h"

#include <boost/describe/enum_to_string.hpp>

#include <variant>

namespace tutti::coordinator {

namespace {

double seconds(std::int64_t from_ms, std::int64_t to_ms) {
  return static_cast<double>(std::max<std::int64_t>(0, to_ms - from_ms)) / 1000;
}

}  // namespace

void ClusterMeter::on_running(const GroupRunning& fact, const ClusterState& state) {
  const auto found = starting_.extract(fact.job);
  const JobRecord* job = state.find_job(fact.job);
  if (job == nullptr) return;
  // Programs and servers make no step that would end it.
  if (job->terms.kind != "train") observe_recovery(*job, fact.generation);
  if (job->started_unix_ms != fact.unix_ms) return;
  queue_seconds.observe(seconds(job->submitted_unix_ms, fact.unix_ms));
  if (found.empty()) return;
  const Start& at = found.mapped();
  const std::int64_t ordered_ms = at.ordered_ms == 0 ? at.placed_ms : at.ordered_ms;
  start[0].seconds.observe(seconds(job->submitted_unix_ms, at.placed_ms));
  start[1].seconds.observe(seconds(at.placed_ms, ordered_ms));
  start[2].seconds.observe(seconds(ordered_ms, fact.unix_ms));
}

void ClusterMeter::on_settled(const JobSettled& fact, const ClusterState& state) {
  starting_.erase(fact.job);
  const JobRecord* job = state.find_job(fact.job);
  if (job == nullptr || !is_terminal(fact.outcome.state)) return;
  ++settled[{job->terms.kind, boost::describe::enum_to_string(fact.outcome.state, "unknown")}];
  if (job->started_unix_ms != 0) run_seconds.observe(seconds(job->started_unix_ms, fact.unix_ms));
}

// Its recovery into that generation is whole: all phases that it has are known.
void ClusterMeter::observe_recovery(const JobRecord& job, Generation generation) {
  if (job.recoveries.empty()) return;
  const Recovery& last = job.recoveries.back();
  // A change of size is no recovery.
  if (last.generation != generation || last.planned) return;
  const std::int64_t times[] = {last.decided_ms, last.aborted_ms, last.regrouped_ms, last.copied_ms,
                                last.first_step_ms};
  for (std::size_t i = 0; i < recovery.size(); ++i) {
    if (times[i] >= 0) recovery[i].seconds.observe(seconds(0, times[i]));
  }
  steps_lost += last.lost_steps;
}

void ClusterMeter::on(const Fact& fact, const ClusterState& state) {
  if (std::holds_alternative<JobSubmitted>(fact)) ++submitted;
  if (std::holds_alternative<CheckpointTaken>(fact)) ++checkpoints;
  if (std::holds_alternative<CheckpointDropped>(fact)) ++checkpoints_dropped;
  if (const auto* placed = std::get_if<GenerationStarted>(&fact)) {
    ++generations;
    if (placed->generation == Generation{1}) starting_[placed->job] = {placed->unix_ms, 0};
  }
  if (const auto* ordered = std::get_if<GroupOrdered>(&fact)) {
    const auto at = starting_.find(ordered->job);
    if (at != starting_.end()) at->second.ordered_ms = ordered->unix_ms;
  }
  if (const auto* aborted = std::get_if<GenerationAborted>(&fact)) starting_.erase(aborted->job);
  if (const auto* counted = std::get_if<FailureCounted>(&fact))
    ++interruptions[boost::describe::enum_to_string(counted->failure, "unknown")];
  if (const auto* running = std::get_if<GroupRunning>(&fact)) on_running(*running, state);
  if (const auto* ended = std::get_if<JobSettled>(&fact)) on_settled(*ended, state);
  if (const auto* first = std::get_if<FirstStepSeen>(&fact)) {
    if (const JobRecord* job = state.find_job(first->job))
      observe_recovery(*job, first->generation);
  }
}

}  // namespace tutti::coordinator
