// Which numerics profile the ranks of a job compute with (DESIGN numerics): a worker tells those it
// can run, a training job's ranks all share one, and the first placement fixes it for good.
//
// Names: "portable" is fp32 on any CPU; those of devices are ARCHITECTURE-PRECISION-LIBRARIES
// ("sm_90-fp32-cublaslt-130200").
//
// Threads: plain functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tutti::coordinator {

std::string_view precision_of(std::string_view profile);

// The first of a worker's that computes so; "portable" where it tells none.
std::string profile_for(const std::vector<std::string>& profiles, std::string_view precision);

}  // namespace tutti::coordinator
