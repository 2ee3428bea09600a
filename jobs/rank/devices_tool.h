// tutti-rank devices: one line of JSON that says what this binary's ranks would compute on; a
// worker asks it before it joins (worker/agent/rank_devices.h).
#pragma once

#include <span>
#include <string>

namespace tutti::rank {

// Always 0: that there are none is an answer.
int run_devices_tool(std::span<const std::string> args);

}  // namespace tutti::rank
