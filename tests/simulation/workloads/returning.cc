#include "tests/simulation/workloads/workloads.h"

namespace tutti::simulation {

// Jobs that wait for the nodes they lost: who is cut off for longer than its lease is taken back
// with the state that it holds.
void plan_returning(Plan& plan) {
  for (int i = 0; i < 2; ++i) {
    PlannedJob& job = plan.train("returning", 2, 400 + plan.rng.below(300));
    job.load.step_time = 60ms;
    job.at = plan.some(0ms, 2s);
    job.load.save_every = 100;
    job.spec.resources.policy = "spread";
    job.spec.on_loss.of_node = "wait";
    job.spec.on_loss.wait_ms = 60'000;
    job.must = Must::end;
  }
}

}  // namespace tutti::simulation
