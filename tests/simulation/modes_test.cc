// Modes beside the random ones: a scenario is run again for each of its events, with a process
// crashed there; and single cases that chance would seldom make.
#include <catch2/catch.hpp>

#include <cstdlib>
#include <deque>

#include "tests/simulation/scenario/runner.h"
#include "tests/simulation/scenario/scenario.h"
#include "tests/simulation/scenario/scenario_file.h"
#include "tests/simulation/scenario/sweep.h"

namespace tutti::simulation {

namespace {

ScenarioOptions loaded(const char* name) {
  auto options = load_scenario(name);
  REQUIRE(options.ok());
  return *options;
}

ScenarioOptions pair() { return loaded("pair"); }

// A sanitized build takes some fifteen times as long, and looks at fewer events.
std::uint64_t stride() { return std::getenv("TUTTI_SIM_SEEDS") != nullptr ? 11 : 1; }

std::string run(std::deque<ScenarioOptions> runs) {
  const Report report = run_all(std::move(runs));
  std::string out;
  for (const Failure& failure : report.failures) {
    out += failure.violation + "\n  replay: " + failure.replay + "\n";
  }
  return out;
}

std::uint64_t events_of(const ScenarioOptions& options) {
  const auto last = working_events(options);
  INFO((last ? "" : last.error().message));
  REQUIRE(last);
  REQUIRE(*last > 100);
  return *last;
}

// A run is a longer one: it is run again for every so many of its events. `simulate sweep` strikes
// each of them, and random seeds meet them in other company.
std::string strike_every(const char* scenario, std::uint64_t events_apart) {
  const ScenarioOptions options = loaded(scenario);
  return run(sweep_runs(options, 1, events_of(options), events_apart * stride()));
}

}  // namespace

TEST_CASE("simulation: a crash of any process at any event of a small run is survived") {
  CHECK(strike_every("pair", 1) == "");
}

TEST_CASE("simulation: a second crash at any event of a recovery is survived") {
  ScenarioOptions options = pair();
  options.strikes = {{.victim = Victim::rank, .number = 1, .event = events_of(options) / 2}};
  Scenario recovered(options);
  REQUIRE(recovered.run().value_or("") == "");
  REQUIRE(recovered.recoveries() == 1);
  std::deque<ScenarioOptions> runs =
      sweep_runs(options, options.strikes[0].event + 1, recovered.last_working_event(), stride());
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
