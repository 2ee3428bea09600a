// One kernel, right and with a fault each: the mirror image of a row within each block of 128.
#include "tests/emulation/kernels_with_faults.h"

#include "kernels/cuda/async_copy.h"
#include "kernels/cuda/launch.h"

namespace tutti::test {

namespace {

using namespace kernels::cuda;

constexpr unsigned kThreads = 128;

template <Fault kFault>
__global__ void mirror_kernel(const float* from, float* to) {
  TUTTI_SHARED(float, tile, kThreads);
  const unsigned i = threadIdx.x;
  const unsigned first = blockIdx.x * kThreads;
  tile[kFault == Fault::overrun ? i + 1 : i] = from[first + i];
  if constexpr (kFault == Fault::divergent_barrier) {
    if (i < 100) __syncthreads();
  } else if constexpr (kFault != Fault::missing_barrier) {
    __syncthreads();
  }
  const unsigned mirrored = kThreads - (kFault == Fault::wrong_index ? 2 : 1) - i;
  to[first + i] = tile[kFault == Fault::wrong_index ? mirrored % kThreads : mirrored];
}

// Two tiles in turn, each filled asynchronously while the other is read: what a pipelined product
// does.
template <Fault kFault>
__global__ void pipelined_sum_kernel(const float* from, float* to, unsigned tiles) {
  TUTTI_SHARED(float, tile, 2 * kThreads);
  const unsigned i = threadIdx.x;
  // A thread reads what its mirror image fetched.
  const unsigned mirrored = kThreads - 1 - i;
  copy_async_4(&tile[i], from + i);
  commit_async_copies();
  float sum = 0.0F;
  for (unsigned t = 0; t < tiles; ++t) {
    if (t + 1 < tiles)
      copy_async_4(&tile[(t + 1) % 2 * kThreads + i], from + (t + 1) * kThreads + i);
    commit_async_copies();
    wait_async_copies<kFault == Fault::missing_wait ? 2 : 1>();
    __syncthreads();
    sum += tile[t % 2 * kThreads + mirrored];
    if constexpr (kFault != Fault::missing_barrier) __syncthreads();
  }
  to[i] = sum;
}

__global__ void write_beyond_kernel(float* to, unsigned count) { to[count] = 1.0F; }

template <Fault kFault>
void mirror(cudaStream_t stream, const float* from, float* to, unsigned blocks) {
  TUTTI_LAUNCH(stream, (LaunchShape{blocks, kThreads}), mirror_kernel<kFault>, from, to);
}

template <Fault kFault>
void pipelined(cudaStream_t stream, const float* from, float* to, unsigned tiles) {
  TUTTI_LAUNCH(stream, (LaunchShape{1, kThreads}), pipelined_sum_kernel<kFault>, from, to, tiles);
}

}  // namespace

void launch_mirror(cudaStream_t stream, Fault fault, const float* from, float* to,
                   unsigned blocks) {
  switch (fault) {
    case Fault::missing_barrier: return mirror<Fault::missing_barrier>(stream, from, to, blocks);
    case Fault::divergent_barrier:
      return mirror<Fault::divergent_barrier>(stream, from, to, blocks);
    case Fault::wrong_index: return mirror<Fault::wrong_index>(stream, from, to, blocks);
    case Fault::overrun: return mirror<Fault::overrun>(stream, from, to, blocks);
    default: return mirror<Fault::none>(stream, from, to, blocks);
  }
}

void launch_pipelined_sum(cudaStream_t stream, Fault fault, const float* from, float* to,
                          unsigned tiles) {
  switch (fault) {
    case Fault::missing_barrier: return pipelined<Fault::missing_barrier>(stream, from, to, tiles);
    case Fault::missing_wait: return pipelined<Fault::missing_wait>(stream, from, to, tiles);
    default: return pipelined<Fault::none>(stream, from, to, tiles);
  }
}

void launch_write_beyond(cudaStream_t stream, float* to, unsigned count) {
  TUTTI_LAUNCH(stream, (LaunchShape{1, 1}), write_beyond_kernel, to, count);
}

}  // namespace tutti::test
