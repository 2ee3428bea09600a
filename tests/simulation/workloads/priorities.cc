#include "tests/simulation/workloads/workloads.h"

namespace tutti::simulation {

void plan_priorities(Plan& plan) {
  constexpr const char* kOwners[] = {"ada", "ben", "cyd"};
  for (int i = 0; i < 6; ++i) {
    const std::uint32_t ranks = plan.some_ranks(4);
    PlannedJob& job = plan.rng.chance(0.5) ? plan.run("queued", ranks, plan.some(100ms, 900ms))
                                           : plan.train("queued", ranks, 30 + plan.rng.below(100));
    job.at = plan.some(0ms, 6s);
    job.load.save_every = 10;
    job.spec.priority = static_cast<std::int32_t>(plan.rng.below(3)) * 10;
    job.owner = kOwners[plan.rng.below(3)];
  }
}

}  // namespace tutti::simulation
