#include "tests/simulation/workloads/workloads.h"

namespace tutti::simulation {

// Jobs that wait for the nodes they lost: who is cut off for longer than its lease is taken back
// with the state that it holds.
void plan_returning(Plan& plan) {
  for (int i = 0; i < 2; ++i) {
    PlannedJob& job = plan.train("returning", 2, 400 + plan.rng.below(300));
    job.load.step_time = 60ms;
    job.at = plan.some(0ms, 2s);
    job.load.save_every = 100;
    job.spec.resources.policy = "spread";
    job.spec.on_loss.of_node = "wait";
    job.spec.on_loss.wait_ms = 60'000;
    job.must = Must::end;
  }
}

// All slots are taken, so that who loses a rank with its node finds no place for it until
// on_loss.wait is over.
void plan_bereft(Plan& plan) {
  constexpr const char* kThen[] = {"shrink", "queue", "shrink", "fail"};
  PlannedJob& job = plan.train("bereft", 3, 600 + plan.rng.below(300));
  job.at = plan.some(0ms, 500ms);
  job.load.save_every = 50;
  job.load.step_time = 40ms;
  job.spec.resources.ranks_min = 2;
  job.spec.resources.policy = "spread";
  job.spec.preemptible = "never";
  job.spec.on_loss.wait_ms = 1'500;
  job.spec.on_loss.then = kThen[plan.rng.below(4)];
  job.must = Must::end;
  PlannedJob& gang = plan.run("bereft-gang", 3, 3s);
  gang.at = plan.some(0ms, 500ms);
  gang.spec.resources.policy = "spread";
  gang.spec.priority = 1;
  gang.spec.stop_after_ms = 1'000;
  gang.spec.on_loss.wait_ms = 1'500;
}

// Steps that take longer than the notice of a worker that ends.
void plan_ponderous(Plan& plan) {
  PlannedJob& job = plan.train("ponderous", 2, 4);
  job.load.step_time = 60s;
  job.load.save_every = 1;
  job.spec.hang.after_ms = 3'600'000;
}

}  // namespace tutti::simulation
