// The grid of parameters (ops/grid.h) on a GPU: one thread block for each grid block, which it
// hashes once it has written it; for kernels.
#pragma once

#include "kernels/cuda/reduce.h"
#include "kernels/cuda/xxh3.h"
#include "kernels/ops/grid.h"
#include "kernels/ops/weight_hash.h"

namespace tutti::kernels::cuda {

inline constexpr unsigned kGridThreads = kHashThreads;

// The grid block of a thread block.
struct GridRange {
  __device__ explicit GridRange(Index count)
      : begin(static_cast<Index>(blockIdx.x) * kGridBlock),
        end(begin + kGridBlock < count ? begin + kGridBlock : count) {}
  Index begin, end;
};

// `room`: shared, kKibsMax * kAccumulators words.
__device__ inline void store_hash(const float* values, const GridRange& range, Word* room,
                                  Hash128* hashes) {
  const HashInput in{reinterpret_cast<const std::uint32_t*>(values + range.begin),
                     static_cast<unsigned>(range.end - range.begin) * 4U};
  const Hash hash = hash_by_block(in, room);
  if (threadIdx.x == 0) {
    hashes[blockIdx.x].low = hash.low;
    hashes[blockIdx.x].high = hash.high;
  }
}

// What follows an update of the block, while it is in the second-level cache; all threads call.
__device__ inline void hash_updated(const float* values, const GridRange& range, Word* room,
                                    Hash128* hashes) {
  if (hashes == nullptr) return;
  __syncthreads();
  store_hash(values, range, room, hashes);
}

// The sum of numbers in memory, by all threads of a kernel's only block; `room`: a double a warp,
// shared.
__device__ inline double sum_of_parts(const double* parts, Index count, double* room) {
  double sum = 0.0;
  for (Index i = threadIdx.x; i < count; i += kGridThreads) sum += parts[i];
  return block_sum(sum, room);
}

}  // namespace tutti::kernels::cuda
