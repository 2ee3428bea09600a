// How many loops of thread pools the calling thread has shared out so far: of one piece, or without
// other threads, a loop stays with its caller. By it a test knows that its case was cut.
#pragma once

#include <cstdint>

namespace tutti::kernels {

std::uint64_t shared_loops();

}  // namespace tutti::kernels
