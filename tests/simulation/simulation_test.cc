// The set of scenarios that CI runs: fixed seeds, which meet every path that must be met, and fresh
// ones, which every commit has its own of.
//
// `simulate cover --first N` shows how many runs of the fixed set meet each path, from other seeds:
// a path with fewer than some ten is met by luck, and needs a scenario that makes it.
//
// A failure prints the command that replays it, and fails the test whichever seed it is of.
// TUTTI_SIM_SEEDS=N bounds the seeds of each scenario (sanitized builds), TUTTI_SIM_FIRST=N says
// where fresh seeds begin. In a tree without git they are the same each time.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "tests/simulation/run_tool.h"
#include "tests/simulation/scenario/runner.h"
#include "tests/simulation/scenario/scenario.h"
#include "tests/simulation/scenario/scenario_file.h"

namespace tutti::simulation {

namespace {

constexpr std::size_t kRarestShown = 12;

// The first digits of the commit that is checked out; nothing outside of a repository.
std::string commit_digits() {
  constexpr int kDigits = 12;
  std::string out;
  std::FILE* git = ::popen("git rev-parse --verify HEAD 2>/dev/null", "r");
  if (git == nullptr) return out;
  for (int digit = std::fgetc(git); digit != EOF; digit = std::fgetc(git)) {
    if (out.size() < kDigits) out += static_cast<char>(digit);
  }
  return ::pclose(git) == 0 ? out : std::string();
}

// Where the seeds of one third of the runs begin.
std::uint64_t fresh_seeds() {
  const char* first = std::getenv("TUTTI_SIM_FIRST");
  const std::uint64_t chosen = first != nullptr
                                   ? std::strtoull(first, nullptr, 10)
                                   : std::strtoull(commit_digits().c_str(), nullptr, 16);
  return chosen != 0 ? chosen : 9'670'687'640'067;
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

// What `simulate run` prints in a process of its own, whose memory is filled with `fill`.
std::string run_elsewhere(const std::string& scenario, const std::string& fill) {
  const ToolRun run = run_tool("run " + scenario + " --seed 7", "MALLOC_PERTURB_=" + fill);
  INFO(run.out);
  CHECK(run.held);
  return run.out;
}

}  // namespace

TEST_CASE("simulation: every scenario keeps every invariant, and the set meets what it must") {
  const auto scenarios = load_scenarios();
  REQUIRE(scenarios.ok());
  REQUIRE(scenarios->size() >= 10);
  const std::uint64_t fresh = fresh_seeds();
  std::deque<ScenarioOptions> runs;
  for (const ScenarioOptions& scenario : *scenarios) {
    ScenarioOptions options = scenario;
    options.seeds = bounded(scenario.seeds);
    for (std::uint32_t i = 0; i < options.seeds; ++i) {
      options.seed = i < fixed_seeds(options) ? i + 1 : fresh + i;
      runs.push_back(options);
    }
  }
  const Report report = run_all(std::move(runs));
  INFO("fresh seeds begin at " << fresh);
  CHECK(text(report) == "");
  // A bounded set need not meet all.
  if (std::getenv("TUTTI_SIM_SEEDS") != nullptr) return;
  INFO(table(report.coverage));
  INFO("rarest paths " << rarest_paths(report.coverage, kRarestShown));
  CHECK(unreached(report.coverage) == std::vector<std::string>{});
  CHECK(empty_cells(report.coverage) == std::vector<std::string>{});
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

// Addresses and what memory held before differ between processes.
TEST_CASE("simulation: a seed gives one trace in every process") {
  for (const char* name : {"everything", "queue-everything"}) {
    const std::string one = run_elsewhere(name, "1");
    CHECK(one.find("all invariants hold") != std::string::npos);
    CHECK(run_elsewhere(name, "170") == one);
  }
}

}  // namespace tutti::simulation
