#include "tests/simulation/scenario/clients.h"
#include "tests/simulation/workloads/workloads.h"

namespace tutti::simulation {

// Nodes are drained because of whom they run, while there is room elsewhere: a server's successor
// begins before it ends, and a training job's other ranks keep their state.
void plan_moves(Plan& plan) {
  PlannedJob& server = plan.train("moved-server", 1, 0);
  server.spec.kind = spec::JobKind::serve;
  server.spec.model.path = "/models/small";
  server.at = plan.some(0ms, 500ms);
  server.must = Must::end;
  const std::string served = server.spec.name;
  plan.at(plan.options.until + plan.some(5s, 20s),
          [served](Clients& clients) { clients.cancel(served, "served enough"); });
  PlannedJob& job = plan.train("moved", 2, 600 + plan.rng.below(300));
  job.at = plan.some(0ms, 500ms);
  job.load.save_every = 60;
  job.spec.resources.policy = "spread";
  const std::string trained = job.spec.name;
  for (const std::string& name : {served, trained}) {
    Duration at = plan.some(3s, 6s);
    for (int i = 0; i < 3; ++i) {
      const Duration deadline = plan.some(8s, 20s);
      const Duration lasts = plan.some(2s, 12s);
      const auto rank = static_cast<std::size_t>(plan.rng.below(2));
      plan.at(at, [name, rank, deadline, lasts](Clients& clients) {
        clients.drain_under(name, rank, {.deadline = deadline, .lasts = lasts});
      });
      at += plan.some(4s, 10s);
    }
  }
}

// Little of each: a server's successor takes over from a drained node, an urgent program takes a
// training job's slot, and what waits for that job follows it.
void plan_handing(Plan& plan) {
  PlannedJob& server = plan.train("handed-server", 1, 0);
  server.spec.kind = spec::JobKind::serve;
  server.spec.model.path = "/models/small";
  server.must = Must::end;
  const std::string served = server.spec.name;
  plan.at(6s, [served](Clients& clients) { clients.cancel(served, "served enough"); });
  plan.at(1200ms, [served](Clients& clients) {
    clients.drain_under(served, 0, {.deadline = 8s, .lasts = 2s});
  });
  PlannedJob& job = plan.train("handed", 1, 60);
  job.spec.priority = 1;
  job.load.save_every = 20;
  const std::string trained = job.spec.name;
  PlannedJob& urgent = plan.run("urgent", 2, 200ms);
  urgent.at = 400ms;
  urgent.spec.priority = 50;
  PlannedJob& follower = plan.run("follower", 1, 50ms);
  follower.after = {{.job = trained, .on = "ok"}};
}

}  // namespace tutti::simulation
