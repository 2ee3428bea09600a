// The set of scenarios that CI runs: fixed seeds; fresh ones where TUTTI_SIM_FIRST is given
// (ops/chaos).
//
// A failure prints the command that replays it. TUTTI_SIM_SEEDS=N bounds the seeds of each scenario
// (sanitized builds), TUTTI_SIM_FIRST=N says where fresh seeds begin.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <optional>
#include <thread>

#include "tests/simulation/scenario/runner.h"
#include "tests/simulation/scenario/scenario.h"
#include "tests/simulation/scenario/scenario_file.h"

namespace tutti::simulation {

namespace {

// Where the seeds of one third of the runs begin: fresh ones, or a set that meets every path that
// must be met.
std::uint64_t later_seeds() {
  const char* first = std::getenv("TUTTI_SIM_FIRST");
  if (first == nullptr) return 9'670'687'640'067;
  return std::max<std::uint64_t>(std::strtoull(first, nullptr, 10), 1);
}

std::uint32_t bounded(std::uint32_t seeds) {
  const char* bound = std::getenv("TUTTI_SIM_SEEDS");
  if (bound == nullptr) return seeds;
  return std::min(seeds, static_cast<std::uint32_t>(std::strtoul(bound, nullptr, 10)));
}

std::string text(const Report& report) {
  std::string out;
  for (const Failure& failure : report.failures) {
    out += failure.violation + "\n  replay: " + failure.replay + "\n";
  }
  return out;
}

}  // namespace

TEST_CASE("simulation: every scenario keeps every invariant, and the set meets what it must") {
  const auto scenarios = load_scenarios();
  REQUIRE(scenarios.ok());
  REQUIRE(scenarios->size() >= 10);
  const std::uint64_t later = later_seeds();
  std::deque<ScenarioOptions> runs;
  for (const ScenarioOptions& scenario : *scenarios) {
    const std::uint32_t seeds = bounded(scenario.seeds);
    for (std::uint32_t i = 0; i < seeds; ++i) {
      const bool first = i < seeds - seeds / 3;
      runs.push_back(scenario);
      runs.back().seed = first ? i + 1 : later + i;
    }
  }
  const auto next = [&]() -> std::optional<ScenarioOptions> {
    if (runs.empty()) return std::nullopt;
    const ScenarioOptions out = runs.front();
    runs.pop_front();
    return out;
  };
  const Report report = run_all(next, std::max(1U, std::thread::hardware_concurrency()));
  INFO("later seeds begin at " << later);
  CHECK(text(report) == "");
  // A bounded set need not meet all.
  if (std::getenv("TUTTI_SIM_SEEDS") != nullptr) return;
  INFO(table(report.coverage));
  CHECK(unreached(report.coverage) == std::vector<std::string>{});
  for (const std::string& cell : empty_cells(report.coverage)) WARN("never met: " << cell);
}

TEST_CASE("simulation: a seed gives one trace, to the byte") {
  for (const char* name : {"everything", "bad-network", "disks"}) {
    auto options = load_scenario(name);
    REQUIRE(options.ok());
    options->seed = 7;
    Scenario one(*options);
    Scenario two(*options);
    CHECK(one.run() == two.run());
    CHECK(one.events() == two.events());
    CHECK(one.trace_hash() == two.trace_hash());
    options->seed = 8;
    Scenario other(*options);
    other.run();
    CHECK(other.trace_hash() != one.trace_hash());
  }
}

}  // namespace tutti::simulation
