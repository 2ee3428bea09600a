#include "tests/simulation/workloads/workloads.h"

namespace tutti::simulation {

void plan_crowd(Plan& plan) {
  for (int i = 0; i < 40; ++i) {
    PlannedJob& job = plan.run("crowd", 1, plan.some(5ms, 30ms));
    job.at = plan.some(0ms, 8s);
  }
}

}  // namespace tutti::simulation
