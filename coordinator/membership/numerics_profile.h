// Which numerics profile the ranks of a job compute with (DESIGN numerics): a worker tells those it
// can run, a training job's ranks all share one, and the first placement fixes it for good.
//
// Names: "portable" is fp32 on any CPU; others are ARCHITECTURE-PRECISION, of devices with
// -LIBRARIES behind it ("portable-bf16", "amx-bf16", "sm_90-fp32-cublaslt-130200").
//
// Threads: plain functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tutti::coordinator {

std::string_view precision_of(std::string_view profile);

// The first of the first worker's that computes so and that all of the gang's workers tell;
// "portable" where there is none. One list for each worker.
std::string profile_for(const std::vector<std::vector<std::string>>& gang,
                        std::string_view precision);

}  // namespace tutti::coordinator
