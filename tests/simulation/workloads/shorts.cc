#include "tests/simulation/scenario/clients.h"
#include "tests/simulation/workloads/workloads.h"

namespace tutti::simulation {

// Tasks that are shorter than asking for the next one takes: they stand in line on their slots
// (coordinator/life/line.h). Those that are called back pass through the queue again.
void plan_shorts(Plan& plan) {
  PlannedJob& shorts = plan.run("shorts", 1, plan.some(1ms, 6ms));
  shorts.at = plan.some(0ms, 4s);
  shorts.spec.array.count = static_cast<std::uint32_t>(30 + plan.rng.below(50));
  shorts.must = Must::end;
  const std::string name = shorts.spec.name;
  const Duration begun = shorts.at;
  for (int i = 0; i < 3; ++i) {
    const auto index = static_cast<std::uint32_t>(plan.rng.below(30));
    plan.at(begun + plan.some(0ms, 2s),
            [name, index](Clients& clients) { clients.cancel_task(name, index); });
  }
  PlannedJob& failing = plan.run("failing-shorts", 1, plan.some(1ms, 6ms));
  failing.at = plan.some(0ms, 8s);
  failing.load.user_failure = 0.1;
  failing.spec.array.count = static_cast<std::uint32_t>(20 + plan.rng.below(20));
  failing.spec.array.at_once = 12;
  failing.must = Must::end;
  if (!plan.rng.chance(0.5)) return;
  PlannedJob& urgent = plan.run("urgent", 1, 50ms);
  urgent.at = plan.some(1s, 6s);
  urgent.spec.priority = 10;
}

// Short tasks that all hang on one node from some moment on: those behind them in line must not
// begin there once that node is cut off and theirs begin elsewhere.
void plan_held_shorts(Plan& plan) {
  PlannedJob& held = plan.run("held-shorts", 1, plan.some(1ms, 4ms));
  held.spec.array.count = 600;
  held.load.held_on = "node-0";
  held.load.held_from = 600ms;
  held.load.held_until = held.load.held_from + 40s;
}

}  // namespace tutti::simulation
