#include "tests/simulation/scenario/clients.h"
#include "tests/simulation/workloads/workloads.h"

namespace tutti::simulation {

void plan_training(Plan& plan) {
  for (int i = 0; i < 3; ++i) {
    PlannedJob& job = plan.train("train", plan.some_ranks(4), 60 + plan.rng.below(240));
    job.at = plan.some(0ms, 6s);
    job.load.save_every = 5 + plan.rng.below(40);
    job.spec.checkpoint.keep = static_cast<std::uint32_t>(1 + plan.rng.below(3));
    // A job that waits for its node gives up after a time, and may.
    if (plan.rng.chance(0.2)) {
      job.spec.on_loss.of_node = "wait";
      job.spec.on_loss.wait_ms = 60'000;
      job.must = Must::end;
    }
  }
}

void plan_pair(Plan& plan) {
  PlannedJob& job = plan.train("pair", 2, 6);
  job.load.save_every = 2;
}

// Little of each: a job grows into what an array leaves, and moves off a node that is drained.
void plan_changes(Plan& plan) {
  PlannedJob& job = plan.train("changing", 1, 80);
  job.spec.resources.ranks_max = 2;
  job.spec.resources.policy = "spread";
  job.load.save_every = 25;
  const std::string name = job.spec.name;
  PlannedJob& tasks = plan.run("tasks", 1, 15ms);
  tasks.spec.array.count = 4;
  tasks.spec.array.at_once = 2;
  plan.at(1800ms, [name](Clients& clients) {
    clients.drain_under(name, 1, {.deadline = 8s, .lasts = 3s});
  });
}

}  // namespace tutti::simulation
