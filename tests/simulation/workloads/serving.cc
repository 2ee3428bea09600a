#include "tests/simulation/scenario/clients.h"
#include "tests/simulation/workloads/workloads.h"

namespace tutti::simulation {

void plan_serving(Plan& plan) {
  PlannedJob& job = plan.train("serve", 1, 0);
  job.spec.kind = spec::JobKind::serve;
  job.spec.model.path = "/models/small";
  job.at = plan.some(0ms, 2s);
  job.must = Must::end;
  plan.at(plan.options.until + plan.some(5s, 20s),
          [name = job.spec.name](Clients& clients) { clients.cancel(name, "served enough"); });
}

}  // namespace tutti::simulation
