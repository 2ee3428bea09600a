// As many seeds of all scenarios as fit into some minutes, or so many, on all cores; then the
// coverage. Or the set that CI runs, from any seeds, to see which paths it meets seldom.
#pragma once

#include <string>
#include <vector>

namespace tutti::simulation {

// Exit code: 0 all held, 1 an invariant broke, 2 usage.
int soak(const std::vector<std::string>& arguments);
// The seeds that CI has of each scenario at every commit.
int cover(const std::vector<std::string>& arguments);

}  // namespace tutti::simulation
