// The coordinator and its workers on virtual time, under every fault that the model knows.
//
// A failure prints the command that replays it. TUTTI_SIM_SEED=N runs the random suites with that
// seed only; TUTTI_SIM_SEEDS=N with so many, counted from TUTTI_SIM_FIRST.
#include <catch2/catch.hpp>

#include <cstdlib>

#include "tests/simulation/scenario.h"

namespace tutti::simulation {

namespace {

std::vector<std::uint64_t> seeds(std::uint64_t count) {
  if (const char* one = std::getenv("TUTTI_SIM_SEED")) return {std::strtoull(one, nullptr, 10)};
  if (const char* many = std::getenv("TUTTI_SIM_SEEDS")) count = std::strtoull(many, nullptr, 10);
  const char* from = std::getenv("TUTTI_SIM_FIRST");
  const std::uint64_t first = from != nullptr ? std::strtoull(from, nullptr, 10) : 1;
  std::vector<std::uint64_t> out;
  for (std::uint64_t seed = first; seed < first + count; ++seed) out.push_back(seed);
  return out;
}

std::string replay(const ScenarioOptions& options, const std::string& violation) {
  return violation + "\n  replay: TUTTI_SIM_SEED=" + std::to_string(options.seed) +
         " bin/simulation_test \"" + Catch::getResultCapture().getCurrentTestName() + "\"";
}

void run_clean(const ScenarioOptions& options) {
  Scenario scenario(options);
  const auto violation = scenario.run();
  if (violation) FAIL(replay(options, *violation));
}

// The run is named by its strikes: it has no chance in it but the seed's.
void run_struck(const ScenarioOptions& options) {
  Scenario scenario(options);
  const auto violation = scenario.run();
  if (!violation) return;
  std::string strikes;
  for (const Strike& strike : options.strikes) {
    strikes += " victim " + std::to_string(static_cast<int>(strike.victim)) + " at event " +
               std::to_string(strike.event);
  }
  FAIL(replay(options, *violation + "\n " + strikes));
}

ScenarioOptions two_ranks() {
  ScenarioOptions options;
  options.slots = 1;
  options.jobs = {{.name = "train", .ranks = 2}};
  return options;
}

NetworkOptions bad_network() {
  return {.delay_min = 200us, .delay_max = 20ms, .loss = 0.02, .repeat = 0.02, .overtake = 0.05};
}

// About twenty seconds of work for six slots.
std::vector<SimJob> mixed_jobs() {
  return {
      {.name = "a", .ranks = 2, .load = {.steps = 300, .save_every = 40}},
      {.name = "b", .kind = "run", .ranks = 2, .at = 100ms, .load = {.step_time = 2s}},
      {.name = "c", .ranks = 3, .at = 300ms, .load = {.steps = 200, .save_every = 17}},
      {.name = "d", .kind = "run", .ranks = 1, .at = 500ms, .load = {.step_time = 300ms}},
      {.name = "e", .ranks = 1, .at = 600ms, .load = {.steps = 250, .save_every = 25}},
      {.name = "f", .kind = "run", .ranks = 3, .at = 2s, .load = {.step_time = 400ms}},
      {.name = "g", .ranks = 4, .at = 6s, .load = {.steps = 100, .save_every = 9}},
  };
}

}  // namespace

TEST_CASE("simulation: without faults every job is done at once") {
  ScenarioOptions options;
  options.jobs = mixed_jobs();
  options.bound = 60s;
  Scenario scenario(options);
  const auto violation = scenario.run();
  REQUIRE(violation.value_or("") == "");
  CHECK(scenario.recoveries() == 0);
  CHECK(scenario.job("a")->checkpoints.back().step == 300);
}

TEST_CASE("simulation: a crash at any event of a small run is survived") {
  Scenario undisturbed(two_ranks());
  REQUIRE(undisturbed.run().value_or("") == "");
  const Victim victim = GENERATE(Victim::coordinator_before_sync, Victim::coordinator_after_sync,
                                 Victim::worker, Victim::rank);
  for (std::uint64_t event = 1; event <= undisturbed.events(); ++event) {
    ScenarioOptions options = two_ranks();
    options.strikes = {{.victim = victim, .event = event}};
    run_struck(options);
  }
}

TEST_CASE("simulation: a second crash at any event of a recovery is survived") {
  Scenario undisturbed(two_ranks());
  REQUIRE(undisturbed.run().value_or("") == "");
  const Strike first{.victim = Victim::rank, .event = undisturbed.events() / 2};
  ScenarioOptions once = two_ranks();
  once.strikes = {first};
  Scenario recovered(once);
  REQUIRE(recovered.run().value_or("") == "");
  REQUIRE(recovered.recoveries() == 1);
  const Victim victim = GENERATE(Victim::coordinator_before_sync, Victim::coordinator_after_sync,
                                 Victim::worker, Victim::rank);
  for (std::uint64_t event = first.event + 1; event <= recovered.events(); ++event) {
    ScenarioOptions options = two_ranks();
    options.strikes = {first, {.victim = victim, .event = event}};
    run_struck(options);
  }
}

TEST_CASE("simulation: a coordinator that is away for a minute costs no healthy job anything") {
  ScenarioOptions options = two_ranks();
  options.jobs[0].load = {.steps = 2'000, .save_every = 5'000};
  options.strikes = {{.victim = Victim::coordinator_after_sync, .event = 600, .away = 60s}};
  Scenario scenario(options);
  REQUIRE(scenario.run().value_or("") == "");
  CHECK(scenario.recoveries() == 0);
}

TEST_CASE("simulation: programs of a node that is cut off never meet their successors") {
  ScenarioOptions options;
  options.slots = 1;
  options.jobs = {{.name = "program", .kind = "run", .ranks = 1, .load = {.step_time = 10s}}};
  for (const std::uint64_t event : {100, 101}) {  // one of them hits the node that runs it
    for (const Duration away : {3s, 8s, 40s}) {
      options.strikes = {{.victim = Victim::link, .event = event, .away = away}};
      run_struck(options);
    }
  }
}

TEST_CASE("simulation: random faults on a good network") {
  for (const std::uint64_t seed : seeds(200)) {
    ScenarioOptions options;
    options.seed = seed;
    options.workers = 3;
    options.jobs = mixed_jobs();
    options.faults.until = 20s;
    run_clean(options);
  }
}

TEST_CASE("simulation: random faults on a network that loses and repeats and reorders") {
  for (const std::uint64_t seed : seeds(200)) {
    ScenarioOptions options;
    options.seed = seed;
    options.workers = 3;
    options.network = bad_network();
    options.jobs = mixed_jobs();
    options.faults.until = 20s;
    run_clean(options);
  }
}

TEST_CASE("simulation: programs and checkpoints that fail by themselves") {
  for (const std::uint64_t seed : seeds(100)) {
    ScenarioOptions options;
    options.seed = seed;
    options.innocent = false;
    options.jobs = mixed_jobs();
    for (SimJob& job : options.jobs) {
      job.load.user_failure = 0.4;
      job.load.save_failure = 0.3;
      job.retries_user = 1;
    }
    options.faults.until = 5s;
    run_clean(options);
  }
}

TEST_CASE("simulation: one seed gives one run") {
  ScenarioOptions options;
  options.seed = 7;
  options.workers = 3;
  options.network = bad_network();
  options.jobs = mixed_jobs();
  options.faults.until = 10s;
  Scenario one(options);
  Scenario two(options);
  REQUIRE(one.run() == two.run());
  CHECK(one.events() == two.events());
  CHECK(one.steps_committed() == two.steps_committed());
}

TEST_CASE("simulation: a coordinator that speaks before it has synced is caught") {
  bool caught = false;
  for (std::uint64_t seed = 1; seed <= 20 && !caught; ++seed) {
    ScenarioOptions options;
    options.seed = seed;
    options.workers = 3;
    options.jobs = mixed_jobs();
    options.faults.until = 20s;
    options.faults.every = 100ms;
    options.sabotage = Sabotage::speak_before_sync;
    Scenario scenario(options);
    const auto violation = scenario.run();
    caught = violation.has_value();
  }
  CHECK(caught);
}

TEST_CASE("simulation: a coordinator that forgets its journal is caught") {
  ScenarioOptions options = two_ranks();
  options.strikes = {{.victim = Victim::coordinator_after_sync, .event = 60}};
  options.sabotage = Sabotage::forget_on_restart;
  Scenario scenario(options);
  const auto violation = scenario.run();
  REQUIRE(violation);
  CHECK(violation->substr(0, 2) == "I1");
}

}  // namespace tutti::simulation
