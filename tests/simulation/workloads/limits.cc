#include "tests/simulation/workloads/workloads.h"

namespace tutti::simulation {

void plan_limits(Plan& plan) {
  PlannedJob& endless = plan.train("endless", plan.some_ranks(2), 1'000'000);
  endless.at = plan.some(0ms, 3s);
  endless.load.save_every = 1'000;
  endless.spec.limit.time_ms = 4'000 + plan.rng.below(4'000);
  endless.must = Must::end;
  PlannedJob& waiting = plan.run("waiting", 1, 200ms);
  waiting.spec.limit.queued_ms = 500 + plan.rng.below(10'000);
  waiting.at = plan.some(0ms, 6s);
  waiting.must = Must::end;
  PlannedJob& huge = plan.run("huge", plan.options.workers * plan.options.slots + 1, 200ms);
  huge.spec.limit.queued_ms = 2'000 + plan.rng.below(8'000);
  huge.at = plan.some(0ms, 6s);
  huge.must = Must::end;
  // More ranks than any job may have: refused at once.
  PlannedJob& impossible = plan.run("impossible", 100'000, 200ms);
  impossible.at = plan.some(0ms, 6s);
  impossible.must = Must::be_refused;
}

}  // namespace tutti::simulation
