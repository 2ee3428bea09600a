#include "tests/simulation/scenario/clients.h"
#include "tests/simulation/workloads/workloads.h"

namespace tutti::simulation {

void plan_cancels(Plan& plan) {
  for (int i = 0; i < 4; ++i) {
    const bool program = plan.rng.chance(0.4);
    PlannedJob& job =
        program ? plan.run("cancelled", static_cast<std::uint32_t>(1 + plan.rng.below(2)), 2s)
                : plan.train("cancelled", plan.some_ranks(4), 200);
    job.at = plan.some(0ms, 6s);
    job.load.save_every = 20;
    job.must = Must::end;
    const std::string name = job.spec.name;
    const Duration when = job.at + plan.some(0ms, 4s);
    const bool saves = plan.rng.chance(0.4);
    plan.at(when, [name, saves](Clients& clients) {
      if (saves) return clients.cancel_saving(name, "saved and not wanted any more");
      clients.cancel(name, "not wanted any more");
    });
    if (!plan.rng.chance(0.3)) continue;
    plan.at(when + plan.some(0ms, 500ms),
            [name](Clients& clients) { clients.cancel(name, "once more"); });
  }
}

}  // namespace tutti::simulation
