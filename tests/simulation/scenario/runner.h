// Runs many scenarios on all cores and gathers what they met. A run that aborts (a broken assertion
// of the code under test) prints its replay command first.
#pragma once

#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "tests/simulation/scenario/coverage.h"
#include "tests/simulation/scenario/options.h"

namespace tutti::simulation {

struct Failure {
  std::string violation;
  std::string replay;
};

struct Report {
  std::vector<Failure> failures;
  Coverage coverage;
};

// One after the other from `next` until it has no more, on `threads` threads. `next` is called by
// one thread at a time.
Report run_all(const std::function<std::optional<ScenarioOptions>()>& next, unsigned threads);
// These, on all cores.
Report run_all(std::deque<ScenarioOptions> runs);

// The first ones, each with its replay command: more would tell nothing new.
void print_failures(const Report& report);

// The violation with its replay command; empty: none.
std::string run_one(const ScenarioOptions& options, Coverage& coverage);

}  // namespace tutti::simulation
