#include "coordinator/cluster_meter.h"

#include <boost/describe/enum_to_string.hpp>

#include <variant>

namespace tutti::coordinator {

namespace {

double seconds(std::int64_t from_ms, std::int64_t to_ms) {
  return static_cast<double>(std::max<std::int64_t>(0, to_ms - from_ms)) / 1000;
}

}  // namespace

void ClusterMeter::on_settled(const JobSettled& fact, const ClusterState& state) {
  const JobRecord* job = state.find_job(fact.job);
  if (job == nullptr || !is_terminal(fact.outcome.state)) return;
  ++settled[{job->terms.kind, boost::describe::enum_to_string(fact.outcome.state, "unknown")}];
  if (job->started_unix_ms != 0) run_seconds.observe(seconds(job->started_unix_ms, fact.unix_ms));
}

// The recovery is whole: all its phases are known.
void ClusterMeter::on_first_step(const FirstStepSeen& fact, const ClusterState& state) {
  const JobRecord* job = state.find_job(fact.job);
  if (job == nullptr || job->recoveries.empty()) return;
  const Recovery& last = job->recoveries.back();
  // A change of size is no recovery.
  if (last.generation != fact.generation || last.planned) return;
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
  if (std::holds_alternative<GenerationStarted>(fact)) ++generations;
  if (const auto* counted = std::get_if<FailureCounted>(&fact))
    ++interruptions[boost::describe::enum_to_string(counted->failure, "unknown")];
  if (const auto* running = std::get_if<GroupRunning>(&fact)) {
    const JobRecord* job = state.find_job(running->job);
    if (job != nullptr && job->started_unix_ms == running->unix_ms)
      queue_seconds.observe(seconds(job->submitted_unix_ms, running->unix_ms));
  }
  if (const auto* ended = std::get_if<JobSettled>(&fact)) on_settled(*ended, state);
  if (const auto* first = std::get_if<FirstStepSeen>(&fact)) on_first_step(*first, state);
}

}  // namespace tutti::coordinator
