#include "tests/simulation/scenario/clients.h"
#include "tests/simulation/workloads/workloads.h"

namespace tutti::simulation {

void plan_keys(Plan& plan) {
  for (int i = 0; i < 2; ++i) {
    PlannedJob& job = plan.train("key", 1, 40);
    job.at = plan.some(0ms, 3s);
    const std::string name = job.spec.name;
    for (int again = 0; again < 4; ++again) {
      plan.at(job.at + plan.some(0ms, 10s),
              [name](Clients& clients) { clients.submit_again(name); });
    }
    plan.at(job.at + plan.some(0ms, 10s), [name](Clients& clients) { clients.submit_other(name); });
  }
  // Asked once by a client that goes away: it may run or not, but not after a refusal.
  PlannedJob single = plan.run("once", 1, 100ms);
  single.must = Must::end;
  plan.jobs.pop_back();
  plan.at(plan.some(0ms, 5s), [single](Clients& clients) { clients.submit_once(single); });
}

}  // namespace tutti::simulation
