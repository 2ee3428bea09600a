#include "tests/simulation/workloads/workloads.h"

namespace tutti::simulation {

void plan_elastic(Plan& plan) {
  for (int i = 0; i < 2; ++i) {
    PlannedJob& job = plan.train("elastic", 1, 100 + plan.rng.below(200));
    job.spec.resources.ranks_max = 4;
    job.at = plan.some(0ms, 4s);
    job.load.save_every = 10 + plan.rng.below(30);
    if (plan.rng.chance(0.3)) job.spec.on_loss.wait_ms = 2'000;
    if (plan.rng.chance(0.3)) job.spec.on_loss.of_node = "shrink";
    if (plan.rng.chance(0.4)) job.spec.resources.ranks_min = 2;
    if (plan.rng.chance(0.5)) {
      constexpr const char* kThen[] = {"queue", "shrink", "fail"};
      job.spec.on_loss.then = kThen[plan.rng.below(3)];
      job.spec.on_loss.wait_ms = 2'000;
      if (job.spec.on_loss.then == "fail") job.must = Must::end;
    }
  }
}

}  // namespace tutti::simulation
