#include "tests/simulation/workloads/workloads.h"

namespace tutti::simulation {

void plan_failing(Plan& plan) {
  for (int i = 0; i < 3; ++i) {
    PlannedJob& program = plan.run("failing", static_cast<std::uint32_t>(1 + plan.rng.below(2)),
                                   plan.some(100ms, 600ms));
    program.at = plan.some(0ms, 5s);
    program.load.user_failure = 0.4;
    program.spec.retries.user = static_cast<std::uint32_t>(plan.rng.below(3));
    program.must = Must::end;
  }
  // Its user knows what that exit code means.
  PlannedJob& judged = plan.run("judged", 1, plan.some(50ms, 200ms));
  judged.at = plan.some(0ms, 5s);
  judged.load.user_failure = 0.5;
  judged.spec.retries.on = {{{"code", "1"}, {"class", "infrastructure"}}};
  PlannedJob& broken = plan.train("broken", plan.some_ranks(2), 50);
  broken.at = plan.some(0ms, 5s);
  broken.load.set_up_failure = 0.3;
  broken.spec.retries.user = 1;
  broken.must = Must::end;
  PlannedJob& aborting = plan.train("aborting", plan.some_ranks(4), 60);
  aborting.at = plan.some(0ms, 5s);
  aborting.load.own_failure = 0.01;
  aborting.must = Must::end;
  // A checkpoint that cannot be written costs no job anything.
  PlannedJob& saving = plan.train("saving", plan.some_ranks(4), 80);
  saving.at = plan.some(0ms, 5s);
  saving.load.save_every = 7;
  saving.load.save_failure = 0.3;
}

// Jobs whose budgets for the infrastructure's failures are as small as a user may make them: they
// end once it is used up, and not before.
void plan_budgets(Plan& plan) {
  for (std::uint32_t i = 0; i < 4; ++i) {
    PlannedJob& job = plan.rng.chance(0.5)
                          ? plan.run("budget", 1, plan.some(2s, 6s))
                          : plan.train("budget", plan.some_ranks(2), 200 + plan.rng.below(300));
    job.at = plan.some(0ms, 3s);
    job.load.save_every = 40;
    job.spec.retries.infrastructure = static_cast<std::uint32_t>(plan.rng.below(2));
    job.must = Must::end;
  }
}

}  // namespace tutti::simulation
