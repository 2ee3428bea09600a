#include "tests/simulation/workloads/workloads.h"

namespace tutti::simulation {

void plan_programs(Plan& plan) {
  for (int i = 0; i < 4; ++i) {
    const auto ranks = static_cast<std::uint32_t>(1 + plan.rng.below(3));
    PlannedJob& job = plan.run("program", ranks, plan.some(50ms, 1500ms));
    job.at = plan.some(0ms, 8s);
  }
}

void plan_long_programs(Plan& plan) {
  for (int i = 0; i < 2; ++i) plan.run("long", 1, 10s).at = plan.some(0ms, 4s);
}

void plan_users(Plan& plan) {
  for (const char* owner : {"ann", "ben", "cat", "dan"}) {
    for (int i = 0; i < 2; ++i) {
      const auto ranks = static_cast<std::uint32_t>(1 + plan.rng.below(2));
      PlannedJob& job = plan.run("of-a-user", ranks, plan.some(50ms, 1s));
      job.at = plan.some(0ms, 10s);
      job.owner = owner;
    }
    PlannedJob& array = plan.run("tasks", 1, plan.some(50ms, 300ms));
    array.spec.array.count = 4;
    array.at = plan.some(0ms, 10s);
    array.owner = owner;
  }
}

void plan_one_program(Plan& plan) {
  // Where the other node is away it is tried again, and may be its user's failure.
  plan.run("one", 1, 600ms).must = Must::end;
}

// Programs of several ranks, and others that wait behind them and would take a slot that one of
// them loses: more of them, and more urgent ones.
void plan_gangs(Plan& plan) {
  for (int i = 0; i < 4; ++i) {
    const auto ranks = static_cast<std::uint32_t>(2 + plan.rng.below(2));
    PlannedJob& gang = plan.run("gang", ranks, plan.some(600ms, 1500ms));
    gang.at = plan.some(0ms, 8s);
    if (plan.rng.chance(0.3)) gang.spec.on_loss.wait_ms = 4'000 + plan.rng.below(6'000);
    if (!plan.rng.chance(0.3)) continue;
    gang.spec.on_loss.then = "fail";
    gang.must = Must::end;
  }
  PlannedJob& training = plan.train("training", 2, 150);
  training.at = plan.some(0ms, 4s);
  training.load.save_every = 30;
  for (int i = 0; i < 10; ++i) {
    PlannedJob& newcomer = plan.run("newcomer", 1, plan.some(200ms, 800ms));
    newcomer.at = plan.some(500ms, 16s);
    newcomer.spec.priority = static_cast<std::int32_t>(plan.rng.below(3)) * 10;
    newcomer.owner = plan.rng.chance(0.5) ? "ada" : "ben";
  }
}

}  // namespace tutti::simulation
