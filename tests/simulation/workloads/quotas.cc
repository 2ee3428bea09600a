#include "tests/simulation/workloads/workloads.h"

namespace tutti::simulation {

// One user asks for more than the scenario's quotas give, another one for what is left.
void plan_quotas(Plan& plan) {
  for (int i = 0; i < 9; ++i) {
    const auto ranks = static_cast<std::uint32_t>(1 + plan.rng.below(2));
    PlannedJob& job = plan.rng.chance(0.5) ? plan.run("rationed", ranks, plan.some(100ms, 500ms))
                                           : plan.train("rationed", ranks, 20 + plan.rng.below(60));
    job.at = plan.some(0ms, 5s);
    job.load.save_every = 10;
    job.owner = "ada";
  }
  PlannedJob& wide = plan.train("rationed-wide", 1, 150);
  wide.spec.resources.ranks_max = 4;
  wide.at = plan.some(0ms, 2s);
  wide.load.save_every = 20;
  wide.owner = "ada";
  PlannedJob& tasks = plan.run("rationed-tasks", 1, 100ms);
  tasks.at = plan.some(0ms, 5s);
  tasks.spec.array.count = 3;
  tasks.owner = "ada";
  for (int i = 0; i < 3; ++i) {
    PlannedJob& job = plan.train("free", plan.some_ranks(2), 40);
    job.at = plan.some(0ms, 5s);
    job.owner = "ben";
  }
}

}  // namespace tutti::simulation
