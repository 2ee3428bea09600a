// Scenario files: tests/simulation/scenarios/NAME.yaml, parsed as strictly as a job spec.
//
// Errors: invalid_argument with the place; not_found.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "protocol/base/result.h"
#include "tests/simulation/scenario/options.h"

namespace tutti::simulation {

Result<ScenarioOptions> parse_scenario(std::string_view yaml, std::string_view file);

// Where the files are: $TUTTI_SCENARIOS, else tests/simulation/scenarios from here.
std::string scenario_folder();
Result<ScenarioOptions> load_scenario(const std::string& name);
// All of them, by name.
Result<std::vector<ScenarioOptions>> load_scenarios();

// "worker:1@230" as replay_command writes it.
Result<Strike> parse_strike(std::string_view text);

}  // namespace tutti::simulation
