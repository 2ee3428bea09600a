#include "tests/simulation/scenario/clients.h"
#include "tests/simulation/workloads/workloads.h"

namespace tutti::simulation {

void plan_crowd(Plan& plan) {
  for (int i = 0; i < 40; ++i) {
    PlannedJob& job = plan.run("crowd", 1, plan.some(5ms, 30ms));
    job.at = plan.some(0ms, 8s);
    // Its key stands for it also when the history has lost it.
    if (i % 8 != 0) continue;
    plan.at(plan.some(10s, 20s),
            [name = job.spec.name](Clients& clients) { clients.submit_again(name); });
  }
}

}  // namespace tutti::simulation
