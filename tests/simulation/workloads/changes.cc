#include "tests/simulation/scenario/clients.h"
#include "tests/simulation/workloads/workloads.h"

namespace tutti::simulation {

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
