// `tutti check`: what this machine can do, measured within a deadline.
#pragma once

#include <span>
#include <string>

namespace tutti::rank {

// Arguments after `check`. Gives the exit code: 0; 2 with one line on standard error; 3 where the
// deadline passed before all was measured.
int run_check_tool(std::span<const std::string> args);

}  // namespace tutti::rank
