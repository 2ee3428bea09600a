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

}  // namespace tutti::simulation
