#include "tests/simulation/scenario/clients.h"
#include "tests/simulation/workloads/workloads.h"

namespace tutti::simulation {

void plan_dependencies(Plan& plan) {
  const auto first = [&](PlannedJob& job) {
    job.at = plan.some(0ms, 3s);
    return job.spec.name;
  };
  const std::string sound = first(plan.run("sound", 1, plan.some(50ms, 400ms)));
  PlannedJob& doomed = plan.run("doomed", 1, plan.some(50ms, 400ms));
  doomed.load.user_failure = 1;
  doomed.must = Must::end;
  const std::string failed = first(doomed);
  PlannedJob& unwanted = plan.train("unwanted", 1, 400);
  unwanted.must = Must::end;
  const std::string cancelled = first(unwanted);
  plan.at(plan.some(3s, 8s),
          [cancelled](Clients& clients) { clients.cancel(cancelled, "not wanted any more"); });
  // What can never start ends by itself; what may start must.
  const auto then = [&](PlannedJob& job, std::vector<PlannedAfter> after, Must must) {
    job.at = plan.some(0ms, 6s);
    job.after = std::move(after);
    job.must = must;
    return job.spec.name;
  };
  const std::string second =
      then(plan.train("second", plan.some_ranks(2), 30), {{sound, "ok"}}, Must::be_done);
  then(plan.run("third", 1, 100ms), {{sound, "any"}, {second, "ok"}}, Must::be_done);
  then(plan.run("mourner", 1, 100ms), {{failed, "failed"}}, Must::be_done);
  const std::string never =
      then(plan.run("never", 1, 100ms), {{sound, "ok"}, {failed, "ok"}}, Must::end);
  then(plan.run("never-either", 1, 100ms), {{never, "ok"}}, Must::end);
  then(plan.run("unmourned", 1, 100ms), {{second, "failed"}}, Must::end);
  // Cancelled, unless it was done before.
  then(plan.run("heir", 1, 100ms), {{cancelled, "any"}}, Must::be_done);
  PlannedJob& tasks = plan.run("later-tasks", 1, 50ms);
  tasks.spec.array.count = 4;
  tasks.spec.array.at_once = 2;
  then(tasks, {{sound, "ok"}}, Must::be_done);
}

}  // namespace tutti::simulation
