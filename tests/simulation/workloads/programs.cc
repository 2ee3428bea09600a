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

}  // namespace tutti::simulation
