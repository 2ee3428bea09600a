// Modes beside the random ones: a scenario is run again for each of its events, with a process
// crashed there; and single cases that chance would seldom make.
#include <catch2/catch.hpp>

#include <cstdlib>
#include <deque>
#include <thread>

#include "tests/simulation/scenario/runner.h"
#include "tests/simulation/scenario/scenario.h"
#include "tests/simulation/scenario/scenario_file.h"

namespace tutti::simulation {

namespace {

ScenarioOptions loaded(const char* name) {
  auto options = load_scenario(name);
  REQUIRE(options.ok());
  return *options;
}

ScenarioOptions pair() { return loaded("pair"); }

// Every process of the pair: the coordinator on both sides of a sync, both workers, both ranks.
std::vector<Strike> everyone(std::uint64_t event) {
  return {{.victim = Victim::coordinator_before_sync, .event = event},
          {.victim = Victim::coordinator_after_sync, .event = event},
          {.victim = Victim::worker, .number = 0, .event = event},
          {.victim = Victim::worker, .number = 1, .event = event},
          {.victim = Victim::binary, .number = 0, .event = event},
          {.victim = Victim::rank, .number = 0, .event = event},
          {.victim = Victim::rank, .number = 1, .event = event}};
}

// A sanitized build takes some fifteen times as long, and looks at fewer events.
std::uint64_t stride() { return std::getenv("TUTTI_SIM_SEEDS") != nullptr ? 11 : 1; }

std::string run(std::deque<ScenarioOptions> runs) {
  const auto next = [&]() -> std::optional<ScenarioOptions> {
    if (runs.empty()) return std::nullopt;
    const ScenarioOptions out = runs.front();
    runs.pop_front();
    return out;
  };
  const Report report = run_all(next, std::max(1U, std::thread::hardware_concurrency()));
  std::string out;
  for (const Failure& failure : report.failures) {
    out += failure.violation + "\n  replay: " + failure.replay + "\n";
  }
  return out;
}

// Events until the job has ended; after that nothing is left to disturb.
std::uint64_t events_of(const ScenarioOptions& options) {
  Scenario undisturbed(options);
  REQUIRE(undisturbed.run().value_or("") == "");
  const std::uint64_t last = undisturbed.last_working_event();
  REQUIRE(last > 100);
  return last;
}

// A run is a longer one: it is run again for every so many of its events, of which the others are
// met by random seeds.
std::string strike_every(const char* scenario, std::uint64_t events_apart) {
  const ScenarioOptions options = loaded(scenario);
  const std::uint64_t events = events_of(options);
  std::deque<ScenarioOptions> runs;
  for (std::uint64_t event = 1; event <= events; event += events_apart * stride()) {
    std::vector<Strike> strikes = everyone(event);
    for (std::uint32_t number = 2; number < options.workers; ++number) {
      strikes.push_back({.victim = Victim::worker, .number = number, .event = event});
      strikes.push_back({.victim = Victim::rank, .number = number, .event = event});
    }
    for (const Strike& strike : strikes) {
      runs.push_back(options);
      runs.back().strikes = {strike};
    }
  }
  return run(std::move(runs));
}

}  // namespace

TEST_CASE("simulation: a crash of any process at any event of a small run is survived") {
  const ScenarioOptions options = pair();
  const std::uint64_t events = events_of(options);
  std::deque<ScenarioOptions> runs;
  for (std::uint64_t event = 1; event <= events; event += stride()) {
    for (const Strike& strike : everyone(event)) {
      runs.push_back(options);
      runs.back().strikes = {strike};
    }
  }
  CHECK(run(std::move(runs)) == "");
}

TEST_CASE("simulation: a second crash at any event of a recovery is survived") {
  ScenarioOptions options = pair();
  options.strikes = {{.victim = Victim::rank, .number = 1, .event = events_of(options) / 2}};
  Scenario recovered(options);
  REQUIRE(recovered.run().value_or("") == "");
  REQUIRE(recovered.recoveries() == 1);
  std::deque<ScenarioOptions> runs;
  for (std::uint64_t event = options.strikes[0].event + 1; event <= recovered.last_working_event();
       event += stride()) {
    for (const Strike& strike : everyone(event)) {
      runs.push_back(options);
      runs.back().strikes.push_back(strike);
    }
  }
  CHECK(run(std::move(runs)) == "");
}

// The ranks finish while it is away: what they say then must not be overtaken by their worker's
// greeting, or the job ends with its last step unsaved (I14).
TEST_CASE("simulation: a coordinator that is away for seconds from any event on loses no part") {
  const ScenarioOptions options = pair();
  const std::uint64_t events = events_of(options);
  std::deque<ScenarioOptions> runs;
  for (std::uint64_t event = 1; event <= events; event += 2 * stride()) {
    runs.push_back(options);
    runs.back().strikes = {
        {.victim = Victim::coordinator_after_sync, .event = event, .away = Duration(3s)}};
  }
  CHECK(run(std::move(runs)) == "");
}

TEST_CASE("simulation: a worker that is replaced in place at any event costs its job nothing") {
  ScenarioOptions options = pair();
  const std::uint64_t events = events_of(options);
  for (std::uint64_t event = 1; event <= events; event += stride()) {
    options.strikes = {
        {.victim = Victim::binary, .number = static_cast<std::uint32_t>(event), .event = event}};
    Scenario scenario(options);
    INFO("at event " << event);
    REQUIRE(scenario.run().value_or("") == "");
    REQUIRE(scenario.recoveries() == 0);
    REQUIRE(scenario.first_job()->state == coordinator::JobState::done);
  }
}

TEST_CASE("simulation: a crash amid an array, a job's growth and a drain is survived") {
  CHECK(strike_every("changes", 37) == "");
}

TEST_CASE("simulation: a crash amid a server's move, a preemption and a dependency is survived") {
  CHECK(strike_every("hands", 37) == "");
}

TEST_CASE("simulation: a crash while a program is tried on a second node is survived") {
  CHECK(strike_every("refused", 23) == "");
}

TEST_CASE("simulation: a coordinator that is away for a minute costs no healthy job anything") {
  ScenarioOptions options = loaded("long-absence");
  options.strikes = {
      {.victim = Victim::coordinator_after_sync, .event = 1500, .away = Duration(60s)}};
  Scenario scenario(options);
  REQUIRE(scenario.run().value_or("") == "");
  CHECK(scenario.recoveries() == 0);
}

TEST_CASE("simulation: a node cut off at any time runs no program beside its successor") {
  const ScenarioOptions options = loaded("cut-alone");
  std::deque<ScenarioOptions> runs;
  for (std::uint64_t event = 60; event < 160; event += 3) {
    for (const Duration away : {Duration(3s), Duration(8s), Duration(40s)}) {
      runs.push_back(options);
      runs.back().strikes = {{.victim = Victim::link,
                              .number = static_cast<std::uint32_t>(event),
                              .event = event,
                              .away = away}};
    }
  }
  CHECK(run(std::move(runs)) == "");
}

TEST_CASE("simulation: who stood in line on a node that was cut off begins there no more") {
  const ScenarioOptions options = loaded("cut-lines");
  std::deque<ScenarioOptions> runs;
  for (std::uint64_t event = 1400; event < 2400; event += 100) {
    runs.push_back(options);
    runs.back().strikes = {
        {.victim = Victim::link, .number = 0, .event = event, .away = Duration(60s)}};
  }
  CHECK(run(std::move(runs)) == "");
}

}  // namespace tutti::simulation
