// tutti-rank devices: one line of JSON that says what this binary's ranks would compute on; a
// worker asks it before it joins (worker/agent/rank_devices.h).
//
// With --measure it then measures them (kernels/tensor/device_measures.h), for `tutti check --gpu`:
// a line before each measure, and one after it.
//
//   {"begins": 8, "name": "copy to a peer", "unit": "GB/s", "gpu": "GPU-...", "peer": "GPU-..."}
//   {"ended": 8, "value": 391.2, "direct": true}    or, in place of both, "problem": "..."
//
// --after N begins behind measure N, --without UUID leaves a GPU out; --small for tests.
#pragma once

#include <span>
#include <string>

namespace tutti::rank {

// 0: that there are none is an answer; 2: what it was told means nothing; 3: the GPU that was
// measured failed, and this process with it.
int run_devices_tool(std::span<const std::string> args);

}  // namespace tutti::rank
