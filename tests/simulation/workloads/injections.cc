#include "tests/simulation/scenario/clients.h"
#include "tests/simulation/workloads/workloads.h"

namespace tutti::simulation {

void plan_injections(Plan& plan) {
  PlannedJob& job = plan.train("injected", plan.some_ranks(4), 150);
  job.at = plan.some(0ms, 1s);
  job.load.save_every = 30;
  const std::string name = job.spec.name;
  for (int i = 0; i < 4; ++i) {
    const auto rank = static_cast<std::uint32_t>(plan.rng.below(4));
    plan.at(plan.some(1s, 12s), [name, rank](Clients& clients) {
      clients.inject(name, rank, coordinator::FaultAction::kill_rank);
    });
  }
}

}  // namespace tutti::simulation
