#include "tests/simulation/workloads/workloads.h"

namespace tutti::simulation {

// More than fits, of low priority; then what is urgent.
void plan_preemption(Plan& plan) {
  const std::uint32_t slots = plan.options.workers * plan.options.slots;
  for (std::uint32_t taken = 0; taken <= slots; taken += 2) {
    PlannedJob& job = plan.train("patient", 2, 100 + plan.rng.below(150));
    job.at = plan.some(0ms, 2s);
    job.load.save_every = 20 + plan.rng.below(40);
    job.owner = "gil";
    if (plan.rng.chance(0.4)) {
      job.spec.retries.preemptions = static_cast<std::uint32_t>(1 + plan.rng.below(2));
    }
  }
  PlannedJob& program = plan.run("patient-program", 1, 400ms);
  program.at = plan.some(0ms, 1s);
  program.spec.preemptible = "always";
  program.owner = "gil";
  for (int i = 0; i < 3; ++i) {
    PlannedJob& job = plan.train("urgent", plan.some_ranks(4), 20 + plan.rng.below(40));
    job.at = plan.some(2s, 14s);
    job.load.save_every = 20;
    job.spec.priority = 10 + static_cast<std::int32_t>(plan.rng.below(2)) * 10;
    job.owner = "gil";
  }
}

}  // namespace tutti::simulation
