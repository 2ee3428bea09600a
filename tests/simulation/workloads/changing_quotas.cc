#include "tests/simulation/scenario/clients.h"
#include "tests/simulation/workloads/workloads.h"

namespace tutti::simulation {

// The operator gives users more and less while they hold what they have: who holds more than it may
// keeps it, and gets nothing more. In the end all is as the scenario has it.
void plan_changing_quotas(Plan& plan) {
  const std::map<std::string, std::string> choices[] = {
      {},
      {{"ada", "slots=1 running=1 queued=3"}},
      {{"ada", "slots=2"}, {"ben", "slots=1"}},
      {{"default", "slots=2 running=2"}, {"ada", "slots=5 share=3"}},
      {{"ada", "running=1 queued=20"}},
  };
  for (int i = 0; i < 6; ++i) {
    const auto quotas = choices[plan.rng.below(std::size(choices))];
    plan.at(plan.some(500ms, 15s), [quotas](Clients& clients) { clients.set_quotas(quotas); });
  }
  plan.at(plan.options.until + 2s,
          [quotas = plan.options.quotas](Clients& clients) { clients.set_quotas(quotas); });
}

}  // namespace tutti::simulation
