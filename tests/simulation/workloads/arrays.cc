#include "tests/simulation/scenario/clients.h"
#include "tests/simulation/workloads/workloads.h"

namespace tutti::simulation {

void plan_arrays(Plan& plan) {
  // All of its tasks end well, whatever befalls the nodes that they are on.
  PlannedJob& sweep = plan.run("sweep", 1, plan.some(30ms, 200ms));
  sweep.at = plan.some(0ms, 3s);
  sweep.spec.array.count = static_cast<std::uint32_t>(6 + plan.rng.below(10));
  sweep.spec.array.at_once = static_cast<std::uint32_t>(1 + plan.rng.below(3));
  PlannedJob& pairs = plan.run("pairs", 2, plan.some(50ms, 300ms));
  pairs.at = plan.some(0ms, 6s);
  pairs.spec.array.count = 4;
  pairs.spec.array.at_once = plan.rng.chance(0.5) ? 1 : 0;
  PlannedJob& failing = plan.run("failing-tasks", 1, plan.some(30ms, 300ms));
  failing.at = plan.some(0ms, 6s);
  failing.load.user_failure = 0.4;
  failing.spec.retries.user = static_cast<std::uint32_t>(plan.rng.below(2));
  failing.spec.array.count = 8;
  failing.spec.array.at_once = 2;
  failing.must = Must::end;
  // Tasks are taken out one by one, and then, perhaps, the whole.
  PlannedJob& thinned = plan.run("thinned", 1, plan.some(100ms, 400ms));
  thinned.at = plan.some(0ms, 4s);
  thinned.spec.array.count = 10;
  thinned.spec.array.at_once = 2;
  thinned.must = Must::end;
  const std::string name = thinned.spec.name;
  const Duration begun = thinned.at;
  for (int i = 0; i < 5; ++i) {
    const auto index = static_cast<std::uint32_t>(plan.rng.below(10));
    plan.at(begun + plan.some(0ms, 6s),
            [name, index](Clients& clients) { clients.cancel_task(name, index); });
  }
  if (!plan.rng.chance(0.3)) return;
  plan.at(begun + plan.some(1s, 8s),
          [name](Clients& clients) { clients.cancel(name, "enough of them"); });
}

}  // namespace tutti::simulation
