// simulate: one scenario from one seed, as many as fit into some minutes, or those that CI runs.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "tests/simulation/scenario/runner.h"
#include "tests/simulation/scenario/scenario.h"
#include "tests/simulation/scenario/scenario_file.h"
#include "tests/simulation/scenario/soak.h"
#include "tests/simulation/scenario/sweep.h"

namespace {

using namespace tutti;
using namespace tutti::simulation;

int usage() {
  std::fputs(
      "simulate list\n"
      "simulate run SCENARIO [--seed N] [--strike VICTIM:NUMBER@EVENT+AWAY_MS] [--mutate M] "
      "[--trace]\n"
      "simulate soak [--minutes N | --seeds N] [--first SEED] [--threads N]\n"
      "simulate cover [--first SEED] [--threads N]\n"
      "simulate sweep SCENARIO [--apart N] [--from EVENT] [--seed N] [--threads N]\n",
      stderr);
  return 2;
}

int refuse(const Error& error) {
  std::fprintf(stderr, "simulate: %s\n", error.message.c_str());
  return 2;
}

int list() {
  const auto scenarios = load_scenarios();
  if (!scenarios) return refuse(scenarios.error());
  for (const ScenarioOptions& each : *scenarios) {
    std::printf("%-16s %s\n", each.name.c_str(), each.about.c_str());
  }
  return 0;
}

int run(const std::vector<std::string>& arguments) {
  if (arguments.empty()) return usage();
  auto options = load_scenario(arguments[0]);
  if (!options) return refuse(options.error());
  for (std::size_t i = 1; i < arguments.size(); ++i) {
    const std::string& flag = arguments[i];
    if (flag == "--trace") {
      ::setenv("TUTTI_SIM_TRACE", "1", 1);
      continue;
    }
    if (++i == arguments.size()) return usage();
    if (flag == "--seed") {
      options->seed = std::strtoull(arguments[i].c_str(), nullptr, 10);
    } else if (flag == "--strike") {
      const auto strike = parse_strike(arguments[i]);
      if (!strike) return refuse(strike.error());
      options->strikes.push_back(*strike);
    } else if (flag == "--mutate") {
      const MutationRow* mutation = find_mutation(arguments[i]);
      if (mutation == nullptr) return usage();
      options->mutation = mutation->mutation;
    } else {
      return usage();
    }
  }
  Scenario scenario(*options);
  const auto violation = scenario.run();
  std::printf("%s seed %llu: %llu events, %.1f s, trace %016llx: %s\n", options->name.c_str(),
              static_cast<unsigned long long>(options->seed),
              static_cast<unsigned long long>(scenario.events()),
              to_seconds(scenario.coverage().simulated),
              static_cast<unsigned long long>(scenario.trace_hash()),
              violation ? violation->c_str() : "all invariants hold");
  return violation ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.empty()) return usage();
  const std::vector<std::string> rest(arguments.begin() + 1, arguments.end());
  if (arguments[0] == "list") return list();
  if (arguments[0] == "run") return run(rest);
  if (arguments[0] == "soak") return soak(rest);
  if (arguments[0] == "cover") return cover(rest);
  if (arguments[0] == "sweep") return sweep(rest);
  return usage();
}
