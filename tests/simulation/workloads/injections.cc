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

// The first node's worker comes back a moment after each kill.
void plan_flapping(Plan& plan) {
  constexpr int kKills = 9;
  Duration at = plan.some(500ms, 2s);
  for (int i = 0; i < kKills; ++i) {
    plan.at(at, [](Clients& clients) {
      clients.inject_worker("node-0", coordinator::FaultAction::kill_worker);
    });
    at += plan.some(1500ms, 3s);
  }
  // Until it has stayed.
  PlannedJob& last = plan.run("after", 1, 500ms);
  last.at = at + plan.some(8s, 12s);
}

// Three users run programs on one node, and all of them are killed there.
void plan_spoiled(Plan& plan) {
  for (const char* owner : {"ann", "ben", "cat"}) {
    PlannedJob& job = plan.run("spoiled", 1, 3s);
    job.at = plan.some(0ms, 200ms);
    job.owner = owner;
    job.spec.resources.prefer["zone"] = "b";
    const std::string name = job.spec.name;
    plan.at(plan.some(1s, 2s), [name](Clients& clients) {
      clients.inject(name, 0, coordinator::FaultAction::kill_rank);
    });
  }
}

}  // namespace tutti::simulation
