// The proof of the proof: each rule that a simulated machine breaks on purpose is caught, by the
// checker that is named for it.
#include <catch2/catch.hpp>

#include <set>
#include <string>

#include "tests/simulation/checkers/checkers.h"
#include "tests/simulation/run_tool.h"
#include "tests/simulation/scenario/scenario.h"
#include "tests/simulation/scenario/scenario_file.h"
#include "tests/simulation/scenario/sweep.h"

namespace tutti::simulation {

namespace {

constexpr std::uint64_t kSeedsMax = 100;

bool names(std::string_view list, const std::string& name) {
  return (" " + std::string(list) + " ").find(" " + name + " ") != std::string::npos;
}

// The name of the invariant that broke first, over some seeds, with the assertion that the
// row asks for; empty: none did.
std::string caught_by(const MutationRow& row, std::string& what) {
  auto options = load_scenario(std::string(row.scenario));
  REQUIRE(options.ok());
  options->mutation = row.mutation;
  for (std::uint64_t seed = 1; seed <= kSeedsMax; ++seed) {
    options->seed = seed;
    Scenario scenario(*options);
    const auto violation = scenario.run();
    if (!violation) continue;
    what = *violation + "\n  replay: " + replay_command(*options);
    const std::string caught = violation->substr(0, violation->find(' '));
    // Another assertion may be first, if it is one of an invariant that is named.
    if (names(row.caught_by, caught) && violation->find(row.says) == std::string::npos) continue;
    return caught;
  }
  return {};
}

}  // namespace

TEST_CASE(
    "simulation: every rule that is broken on purpose is caught by the checker named for it, and "
    "every checker catches one") {
  REQUIRE(mutations().size() >= 10);
  std::set<std::string> proved;
  for (const MutationRow& row : mutations()) {
    std::string what = "nothing was caught";
    const std::string caught = caught_by(row, what);
    INFO(row.name << " (" << row.what << "), to be caught by " << row.caught_by);
    INFO(what);
    CHECK(names(row.caught_by, caught));
    proved.insert(caught);
  }
  // Not whom the table allows, but who was first to see one.
  for (const CheckerRow& checker : checkers()) {
    INFO(checker.invariant << ": " << checker.holds);
    CHECK(proved.contains(std::string(checker.invariant)));
  }
}

// A broken rule, and one that only a strike brings to light.
TEST_CASE("simulation: the command that is printed gives what it is printed for, to the byte") {
  auto broken = load_scenario("calm");
  auto struck = load_scenario("pair");
  REQUIRE((broken.ok() && struck.ok()));
  broken->mutation = Mutation::form_incomplete;
  const Result<std::uint64_t> last = working_events(*struck);
  REQUIRE(last);
  struck->mutation = Mutation::load_other_state;
  REQUIRE_FALSE(Scenario(*struck).run());
  struck->strikes = {
      {.victim = Victim::rank, .number = 1, .event = *last / 2, .away = Duration(700ms)}};
  for (const ScenarioOptions& options : {*broken, *struck}) {
    const auto violation = Scenario(options).run();
    REQUIRE(violation);
    const std::string command = replay_command(options);
    const std::string tool = "build/ci/bin/simulate ";
    REQUIRE(command.starts_with(tool));
    const ToolRun run = run_tool(command.substr(tool.size()));
    INFO(command << " gave " << run.out << ", and not " << *violation);
    CHECK_FALSE(run.held);
    CHECK(run.out.find(": " + *violation + "\n") != std::string::npos);
  }
}

}  // namespace tutti::simulation
