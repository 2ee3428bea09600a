// One kernel, right and with a fault each: the mirror image of a row within each block of 128.
#include "tests/emulation/kernels_with_faults.h"

#include "kernels/cuda/async_copy.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/tensor_core.h"

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
  // The dynamic part, of which this kernel has none, comes first.
  if constexpr (kFault == Fault::underrun) {
    TUTTI_DYNAMIC_SHARED(float, dynamic);
    dynamic[-1 - static_cast<int>(i)] = 0.0F;
  }
  if constexpr (kFault == Fault::far_away) tile[i + 16 * 1024] = 0.0F;
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

__global__ void nothing_kernel(int) {}

__global__ void static_kernel(int) {
  TUTTI_SHARED(float, room, 8 * 1024);
  room[threadIdx.x] = 0.0F;
}

__global__ void load_kernel(Load load, const unsigned char* from) {
  TUTTI_SHARED(unsigned char, room, 32 * 16);
  const unsigned char* const source = from + 16 * threadIdx.x;
  if (load == Load::copy_async_16) copy_async_16(room + 16 * threadIdx.x, source);
  if (load == Load::copy_async_4) copy_async_4(room + 16 * threadIdx.x, source);
  if (load == Load::matrices) {
    unsigned registers[4];
    load_matrices<false>(registers, reinterpret_cast<const Bf16*>(source));
  }
  if (load == Load::vector) {
    const float4 four = *reinterpret_cast<const float4*>(source);
    memcpy(room + 16 * threadIdx.x, &four, sizeof(four));
  }
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
    case Fault::underrun: return mirror<Fault::underrun>(stream, from, to, blocks);
    case Fault::far_away: return mirror<Fault::far_away>(stream, from, to, blocks);
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

void launch_nothing(cudaStream_t stream, const LaunchShape& shape, Attribute attribute) {
  if (attribute == Attribute::asked) {
    TUTTI_LAUNCH(stream, shape, nothing_kernel, 0);
    return;
  }
  static_cast<void>(emulation::enqueue_grid(
      stream,
      {"nothing",
       nullptr,
       {{shape.blocks.x, shape.blocks.y, shape.blocks.z}, {shape.threads.x}, shape.shared_bytes}},
      [] {}));
}

void launch_with_static(cudaStream_t stream, std::size_t dynamic_bytes) {
  TUTTI_LAUNCH(stream, (LaunchShape{1, kThreads, dynamic_bytes}), static_kernel, 0);
}

void launch_load(cudaStream_t stream, Load load, const float* from, unsigned skipped) {
  TUTTI_LAUNCH(stream, (LaunchShape{1, 32}), load_kernel, load,
               reinterpret_cast<const unsigned char*>(from) + skipped);
}

void launch_write_beyond(cudaStream_t stream, float* to, unsigned count) {
  TUTTI_LAUNCH(stream, (LaunchShape{1, 1}), write_beyond_kernel, to, count);
}

}  // namespace tutti::test
