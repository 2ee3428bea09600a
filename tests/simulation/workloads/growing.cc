#include "tests/simulation/workloads/workloads.h"

namespace tutti::simulation {

// Training jobs that take what is left, and programs that come and go beside them and before them.
void plan_growing(Plan& plan) {
  for (int i = 0; i < 3; ++i) {
    PlannedJob& job = plan.train("growing", 1, 300 + plan.rng.below(300));
    job.at = plan.some(0ms, 1s);
    job.spec.resources.ranks_max = 6;
    job.spec.on_loss.of_node = plan.rng.chance(0.5) ? "shrink" : "replace";
    job.load.save_every = 40;
  }
  for (int i = 0; i < 12; ++i) {
    PlannedJob& job = plan.run("passing", static_cast<std::uint32_t>(1 + plan.rng.below(2)),
                               plan.some(30ms, 200ms));
    job.at = plan.some(0ms, 18s);
    job.spec.priority = plan.rng.chance(0.5) ? 10 : 0;
  }
}

}  // namespace tutti::simulation
