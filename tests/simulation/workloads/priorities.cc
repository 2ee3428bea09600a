#include "tests/simulation/scenario/clients.h"
#include "tests/simulation/workloads/workloads.h"

namespace tutti::simulation {

void plan_priorities(Plan& plan) {
  constexpr const char* kOwners[] = {"ada", "ben", "cyd"};
  for (int i = 0; i < 6; ++i) {
    const std::uint32_t ranks = plan.some_ranks(4);
    PlannedJob& job = plan.rng.chance(0.5) ? plan.run("queued", ranks, plan.some(100ms, 900ms))
                                           : plan.train("queued", ranks, 30 + plan.rng.below(100));
    job.at = plan.some(0ms, 6s);
    job.load.save_every = 10;
    job.spec.priority = static_cast<std::int32_t>(plan.rng.below(3)) * 10;
    job.owner = kOwners[plan.rng.below(3)];
  }
}

// Wide programs that have to wait for others, and small ones that fit before them: some end in time
// by their limit, some say nothing of when they end.
void plan_fitting(Plan& plan) {
  const std::uint32_t slots = plan.options.workers * plan.options.slots;
  const bool limited = plan.rng.chance(0.7);
  for (std::uint32_t taken = 0; taken + 3 <= slots; taken += 2) {
    PlannedJob& job = plan.run("runs", 2, plan.some(700ms, 2s));
    job.at = plan.some(0ms, 300ms);
    job.must = Must::end;
    if (limited) job.spec.limit.time_ms = 7'000 + plan.rng.below(5'000);
  }
  for (int i = 0; i < 2; ++i) {
    PlannedJob& wide = plan.run("wide", slots - static_cast<std::uint32_t>(plan.rng.below(2)),
                                plan.some(100ms, 300ms));
    wide.at = plan.some(800ms, 1500ms) + i * 5s;
  }
  for (int i = 0; i < 8; ++i) {
    PlannedJob& small = plan.run("small", 1, plan.some(200ms, 1500ms));
    small.at = plan.some(1500ms, 9s);
    small.must = Must::end;
    if (plan.rng.chance(0.7)) small.spec.limit.time_ms = 500 + plan.rng.below(2'000);
  }
}

// Who had much steps back for who had nothing; and who waited a day passes all that are more
// urgent. The clock goes on by minutes, and by a day, where nothing happens.
void plan_aging(Plan& plan) {
  const auto submit = [&](const char* name, const char* owner, Duration at, Duration time) {
    PlannedJob& job = plan.run(name, plan.options.slots, time);
    job.owner = owner;
    job.at = at;
    return job.spec.name;
  };
  submit("first", "greedy", 0ms, 300ms);
  plan.at(5s, [](Clients& clients) { clients.pass_time(2min); });
  submit("busy", "greedy", 6s, plan.some(700ms, 1500ms));
  for (int i = 0; i < 2; ++i) submit("more", "greedy", plan.some(6500ms, 7s), 100ms);
  submit("modest", "modest", plan.some(7100ms, 7500ms), 100ms);

  submit("long", "greedy", 20s, 2s);
  plan.jobs.back().spec.priority = 50;
  submit("old", "modest", 21s, 100ms);
  plan.jobs.back().spec.priority = -5;
  plan.at(21500ms, [](Clients& clients) { clients.pass_time(25h); });
  for (int i = 0; i < 3; ++i) {
    submit("urgent", "greedy", plan.some(21800ms, 22s), 100ms);
    plan.jobs.back().spec.priority = 10;
  }
}

}  // namespace tutti::simulation
