// Whom a test may wait for: a thread that asks a stream again and again whether it is done.
#pragma once

#include <cuda_runtime.h>

#include <atomic>

namespace tutti::emulation {

// The stream that last said it was not. Tests set it to none, and see who asks from then on.
inline std::atomic<cudaStream_t> asked_in_vain = nullptr;

}  // namespace tutti::emulation
