// tutti memory JOB.yaml: what a training job takes of each GPU, by component, before it is sent.
#pragma once

#include <span>
#include <string>

namespace tutti::rank {

// Arguments after `memory`. Gives the exit code: 0, or 2 with one line on standard error.
int run_memory_tool(std::span<const std::string> args);

}  // namespace tutti::rank
