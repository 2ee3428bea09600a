#include "tests/simulation/scenario/clients.h"
#include "tests/simulation/workloads/workloads.h"

namespace tutti::simulation {

void plan_drains(Plan& plan) {
  for (int i = 0; i < 3; ++i) {
    const std::string node = "node-" + std::to_string(plan.rng.below(plan.options.workers));
    const Duration begin = plan.some(1s, 15s);
    const Duration deadline = plan.some(1s, 20s);
    plan.at(begin, [node, deadline](Clients& clients) { clients.drain(node, deadline); });
    plan.at(begin + plan.some(500ms, 25s), [node](Clients& clients) { clients.undrain(node); });
  }
  PlannedJob& job = plan.train("drained", plan.some_ranks(2), 300);
  job.load.save_every = 50;
}

}  // namespace tutti::simulation
