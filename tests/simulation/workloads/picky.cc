#include "tests/simulation/workloads/workloads.h"

namespace tutti::simulation {

// Jobs that not every node suits: by label (zones take turns), by kind of device (the last nodes
// have GPUs, of two makes: scenario.cc), by memory of node or device. A training job keeps the
// numerics profile of the nodes that it was first placed on.
void plan_picky(Plan& plan) {
  const auto some_job = [&](std::string_view name, std::uint32_t ranks) -> PlannedJob& {
    PlannedJob& job = plan.rng.chance(0.5) ? plan.run(name, ranks, plan.some(50ms, 500ms))
                                           : plan.train(name, ranks, 40 + plan.rng.below(100));
    job.at = plan.some(0ms, 6s);
    job.load.save_every = 20;
    return job;
  };
  for (int i = 0; i < 3; ++i) {
    PlannedJob& job = some_job("zoned", static_cast<std::uint32_t>(1 + plan.rng.below(2)));
    job.spec.resources.labels["zone"] = plan.rng.chance(0.5) ? "a" : "b";
  }
  for (int i = 0; i < 2; ++i) some_job("on-gpu", 1).spec.resources.device = "gpu";
  for (int i = 0; i < 2; ++i) {
    PlannedJob& large = some_job("on-large-gpu", 1);
    large.spec.resources.device = "gpu";
    large.spec.resources.device_memory_bytes = std::uint64_t{24} << 30;
  }
  PlannedJob& leaning = some_job("leaning", 2);
  leaning.spec.resources.device = "cpu";
  leaning.spec.resources.prefer["zone"] = "b";
  leaning.spec.resources.policy = "spread";
  PlannedJob& elastic = plan.train("zoned-elastic", 1, 150);
  elastic.spec.resources.ranks_max = 4;
  elastic.spec.resources.labels["zone"] = "a";
  elastic.load.save_every = 30;
  // No node has room for two of these.
  for (int i = 0; i < 2; ++i) {
    some_job("heavy", 2).spec.resources.memory_bytes = kNodeMemory / 2 + 1 + plan.rng.below(1'000);
  }
  // No node has cores for two of these.
  for (int i = 0; i < 4; ++i) {
    PlannedJob& job = plan.run("two-cores", 1, plan.some(200ms, 1s));
    job.at = plan.some(0ms, 4s);
    job.spec.resources.cores = 2;
  }
  PlannedJob& tasks = plan.run("zoned-tasks", 1, 100ms);
  tasks.at = plan.some(0ms, 5s);
  tasks.spec.array.count = 5;
  tasks.spec.resources.labels["zone"] = "b";
  tasks.spec.resources.memory_bytes = kNodeMemory / 3;
  // Nobody has what they ask for.
  PlannedJob& nowhere = plan.run("nowhere", 1, 100ms);
  nowhere.spec.resources.labels["zone"] = "c";
  nowhere.spec.limit.queued_ms = 5'000;
  nowhere.must = Must::end;
}

}  // namespace tutti::simulation
