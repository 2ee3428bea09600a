// A scenario run again for each of its events, with one process crashed there each time.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "protocol/base/result.h"
#include "tests/simulation/scenario/options.h"

namespace tutti::simulation {

// Every process at that event: the coordinator on both sides of a sync, each worker, its binary
// replaced in place, and a rank of each.
std::vector<Strike> everyone(const ScenarioOptions& options, std::uint64_t event);

// Events of the undisturbed scenario until its last job has ended; after that nothing is left to
// disturb. Errors: internal, with what it violates undisturbed.
Result<std::uint64_t> working_events(const ScenarioOptions& options);

// From `first` on, one event of `apart`, each with every process struck in a run of its own.
std::deque<ScenarioOptions> sweep_runs(const ScenarioOptions& options, std::uint64_t first,
                                       std::uint64_t last, std::uint64_t apart);

// simulate sweep SCENARIO [--apart N] [--from EVENT] [--seed N] [--threads N]: exit code 0 all
// held, 1 an invariant broke, 2 usage.
int sweep(const std::vector<std::string>& arguments);

}  // namespace tutti::simulation
