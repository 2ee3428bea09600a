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

}  // namespace tutti::simulation
