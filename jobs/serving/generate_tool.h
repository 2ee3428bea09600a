// `tutti generate MODEL`: continues a prompt with a model directory, without a cluster.
#pragma once

#include <span>
#include <string>

namespace tutti::serving {

// Arguments after `generate`. Gives the exit code: 0, or 2 with one line on standard error.
int run_generate_tool(std::span<const std::string> args);

}  // namespace tutti::serving
