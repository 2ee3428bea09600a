#include "tests/simulation/workloads/workloads.h"

namespace tutti::simulation {

void plan_training(Plan& plan) {
  for (int i = 0; i < 3; ++i) {
    PlannedJob& job = plan.train("train", plan.some_ranks(4), 60 + plan.rng.below(240));
    job.at = plan.some(0ms, 6s);
    job.load.save_every = 5 + plan.rng.below(40);
    job.spec.checkpoint.keep = static_cast<std::uint32_t>(1 + plan.rng.below(3));
    // A job that waits for its node gives up after a time, and may.
    if (plan.rng.chance(0.2)) {
      job.spec.on_loss.of_node = "wait";
      job.spec.on_loss.wait_ms = 60'000;
      job.must = Must::end;
    }
  }
}

void plan_pair(Plan& plan) {
  PlannedJob& job = plan.train("pair", 2, 6);
  job.load.save_every = 2;
}

}  // namespace tutti::simulation
