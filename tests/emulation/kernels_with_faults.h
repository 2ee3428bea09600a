// Kernels that the emulation must tell apart: right ones, and the same with one fault.
#pragma once

#include <cuda_runtime.h>

namespace tutti::test {

enum class Fault {
  none,
  missing_barrier,
  divergent_barrier,
  wrong_index,
  overrun,
  missing_wait,
};

// to[128 b + i] = from[128 b + 127 - i]
void launch_mirror(cudaStream_t stream, Fault fault, const float* from, float* to, unsigned blocks);
// to[i] = sum over tiles t of from[128 t + 127 - i], i < 128
void launch_pipelined_sum(cudaStream_t stream, Fault fault, const float* from, float* to,
                          unsigned tiles);
// Writes one float behind `count` of them.
void launch_write_beyond(cudaStream_t stream, float* to, unsigned count);

}  // namespace tutti::test
