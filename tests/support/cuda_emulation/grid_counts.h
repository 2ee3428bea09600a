// How often kernels were enqueued, for tests that say how much a step launches.
//
// Threads: any.
#pragma once

#include <cstdint>
#include <string_view>

namespace tutti::emulation {

void count_grid(std::string_view kernel);
// Of kernels with the word in their names.
std::uint64_t grids_of(std::string_view word);

}  // namespace tutti::emulation
