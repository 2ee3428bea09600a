// Kernels that the emulation must tell apart: right ones, and the same with one fault.
#pragma once

#include "kernels/cuda/launch.h"

namespace tutti::test {

enum class Fault {
  none,
  missing_barrier,
  divergent_barrier,
  wrong_index,
  overrun,
  underrun,
  far_away,
  missing_wait,
};

// to[128 b + i] = from[128 b + 127 - i]
void launch_mirror(cudaStream_t stream, Fault fault, const float* from, float* to, unsigned blocks);
// to[i] = sum over tiles t of from[128 t + 127 - i], i < 128
void launch_pipelined_sum(cudaStream_t stream, Fault fault, const float* from, float* to,
                          unsigned tiles);
// Nothing, in a grid of `shape`; with `attribute`, the kernel asks for its dynamic shared memory
// first.
enum class Attribute { asked, not_asked };
void launch_nothing(cudaStream_t stream, const kernels::cuda::LaunchShape& shape,
                    Attribute attribute = Attribute::asked);
// 32 KiB of static shared memory beside the dynamic.
void launch_with_static(cudaStream_t stream, std::size_t dynamic_bytes);
// A warp loads from `from` and the `skipped` bytes behind it.
enum class Load { copy_async_16, copy_async_4, matrices, vector };
void launch_load(cudaStream_t stream, Load load, const float* from, unsigned skipped);
// Writes one float behind `count` of them.
void launch_write_beyond(cudaStream_t stream, float* to, unsigned count);

}  // namespace tutti::test
