#include "tests/simulation/workloads/workloads.h"

namespace tutti::simulation {

// Jobs that are not to start yet: some time after their submit, or at a time of day.
void plan_delayed(Plan& plan) {
  for (int i = 0; i < 4; ++i) {
    PlannedJob& job = plan.rng.chance(0.5) ? plan.run("delayed", 1, plan.some(50ms, 500ms))
                                           : plan.train("delayed", plan.some_ranks(4), 40);
    job.at = plan.some(0ms, 5s);
    job.load.save_every = 20;
    const auto ms = static_cast<std::uint64_t>(to_ms(plan.some(200ms, 12s)));
    if (plan.rng.chance(0.5)) {
      job.spec.delay_ms = ms;
    } else {
      job.spec.begin_unix_ms = static_cast<std::uint64_t>(kEpochMs) + ms;
    }
  }
  PlannedJob& tasks = plan.run("delayed-tasks", 1, 100ms);
  tasks.at = plan.some(0ms, 3s);
  tasks.spec.array.count = 4;
  tasks.spec.delay_ms = 500 + plan.rng.below(6'000);
  PlannedJob& job = plan.train("prompt", plan.some_ranks(2), 200);
  job.at = plan.some(0ms, 2s);
  job.load.save_every = 40;
}

}  // namespace tutti::simulation
