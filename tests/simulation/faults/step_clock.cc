#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

namespace {

// A time of day by which something happens to a job or node.
bool has_deadline(const coordinator::ClusterState& state, std::int64_t now_ms) {
  const auto waits = [&](std::int64_t due_ms) { return due_ms > now_ms; };
  for (const coordinator::NodeView& node : state.nodes()) {
    if (waits(node.drain.due_unix_ms)) return true;
  }
  for (const coordinator::JobSummary& each : state.jobs()) {
    const coordinator::JobRecord& job = *state.find_job(each.job);
    if (coordinator::is_terminal(job.state)) continue;
    if (waits(job.release.due_unix_ms) || waits(job.terms.begin_unix_ms) ||
        waits(job.outcome.not_before_unix_ms)) {
      return true;
    }
  }
  return false;
}

}  // namespace

Touched step_clock(Struck& at) {
  constexpr Duration kSteps[] = {-1h, -30s, -500ms, 500ms, 30s, 1h};
  at.world.trace("the clock is set");
  const coordinator::ClusterState* state = at.coordinator.state();
  if (state != nullptr && has_deadline(*state, at.world.wall().unix_ms)) {
    at.world.reached("the clock jumped before a deadline");
  }
  at.world.step_wall(kSteps[at.choice % std::size(kSteps)]);
  return at.everyone;
}

}  // namespace tutti::simulation
