// The grid of parameters (ops/grid.h) on a GPU: one thread block for each grid block, which it
// hashes once it has written it; for kernels.
//
// A step's parameters are many, and most of them small, so that a launch takes as many of them as
// its arguments have room for: no memory is needed, and nothing has to go up first. Which thread
// block does a grid block changes no bit.
#pragma once

#include <span>

#include "kernels/cuda/elementwise/fours.h"
#include "kernels/cuda/reduce.h"
#include "kernels/cuda/xxh3.h"
#include "kernels/ops/grid.h"
#include "kernels/ops/weight_hash.h"

namespace tutti::kernels::cuda {

inline constexpr unsigned kGridThreads = kHashThreads;

// The grid block of a thread block, in a range of `count` elements.
struct GridRange {
  __device__ explicit GridRange(Index count) : GridRange(count, blockIdx.x) {}
  __device__ GridRange(Index count, unsigned block_in)
      : block(block_in),
        begin(static_cast<Index>(block) * kGridBlock),
        end(begin + kGridBlock < count ? begin + kGridBlock : count),
        size(static_cast<unsigned>(end - begin)) {}
  unsigned block;
  Index begin, end;
  unsigned size;
};

// The ranges of one launch: a kernel's argument, marked __grid_constant__ so that it is not copied.
// Arrays are those of a range, which has `count` elements, not none.
template <class Arrays>
struct RangeTable {
  // Arguments of a launch are 4 KiB at most where drivers are old (CUDA programming guide,
  // __global__ function parameters).
  static constexpr std::size_t kBytes = 4096 - 64;
  static constexpr unsigned kMost = kBytes / (sizeof(Arrays) + sizeof(unsigned));

  __device__ const Arrays& own(GridRange& range) const {
    unsigned first = 0;
    for (unsigned last = size - 1; first < last;) {
      const unsigned middle = (first + last) / 2;
      if (blockIdx.x < ends[middle]) {
        last = middle;
      } else {
        first = middle + 1;
      }
    }
    range = GridRange(ranges[first].count, blockIdx.x - (first == 0 ? 0 : ends[first - 1]));
    return ranges[first];
  }

  void add(const Arrays& range) {
    const unsigned before = blocks();
    ranges[size] = range;
    ends[size++] = before + blocks_for(range.count, kGridBlock);
  }
  unsigned blocks() const { return size == 0 ? 0 : ends[size - 1]; }

  Arrays ranges[kMost];
  unsigned ends[kMost];  // thread blocks of the ranges up to and with each
  unsigned size;
};

// launch(table, shape) for all ranges that have elements; Arrays are made of each.
template <class Arrays, class Range, class Launch>
void launch_ranges(std::span<const Range> all, const Launch& launch) {
  RangeTable<Arrays> table = {};
  const auto launch_table = [&] {
    if (table.size > 0) launch(table, LaunchShape{table.blocks(), kGridThreads});
    table.size = 0;
  };
  for (const Range& range : all) {
    const Arrays arrays(range);
    if (arrays.count == 0) continue;
    table.add(arrays);
    if (table.size == RangeTable<Arrays>::kMost) launch_table();
  }
  launch_table();
}

// What each optimizer's range has; states and constants are its own.
struct Weights {
  Weights() = default;
  template <class Range>
  explicit Weights(const Range& args)
      : weight(args.weight.data()),
        gradient(args.gradient.data()),
        hashes(args.hashes.empty() ? nullptr : args.hashes.data()),
        count(static_cast<Index>(args.weight.size())) {}

  float* weight;
  const float* gradient;
  Hash128* hashes;  // null: not wanted
  Index count;
};

__device__ inline HashInput hash_input(const float* values, const GridRange& range) {
  return {reinterpret_cast<const std::uint32_t*>(values + range.begin), range.size * 4U};
}

__device__ inline void keep_hash(const Hash& hash, const GridRange& range, Hash128* hashes) {
  if (threadIdx.x != 0) return;
  hashes[range.block].low = hash.low;
  hashes[range.block].high = hash.high;
}

// `room`: shared, kKibsMax * kAccumulators words.
__device__ inline void store_hash(const float* values, const GridRange& range, Word* room,
                                  Hash128* hashes) {
  const HashInput in = hash_input(values, range);
  const auto read = [&](unsigned byte) { return in.sixteen(byte); };
  keep_hash(hash_by_block(in, room, read), range, hashes);
}

// What follows an update of the block, while it is in the second-level cache; all threads call.
__device__ inline void hash_updated(const float* values, const GridRange& range, Word* room,
                                    Hash128* hashes) {
  if (hashes == nullptr) return;
  __syncthreads();
  store_hash(values, range, room, hashes);
}

// Updates the block and hashes what is updated from registers, where a hash is wanted; all threads
// call. update(i, left) does elements i .. i + 3 of the block, `left` of which it has at most, and
// returns their new values, the hash's, too.
template <class Update>
__device__ __forceinline__ void update_and_hash(const float* values, const GridRange& range,
                                                Word* room, Hash128* hashes, const Update& update) {
  if (hashes == nullptr) {
    for (unsigned i = threadIdx.x * kInFour; i < range.size; i += kGridThreads * kInFour) {
      static_cast<void>(update(i, range.size - i));
    }
    return;
  }
  const auto updated = [&](unsigned byte) {
    const auto i = static_cast<unsigned>(byte / sizeof(float));
    const Four four = update(i, range.size - i);
    uint4 words;
    memcpy(&words, &four, sizeof(words));
    return words;
  };
  keep_hash(hash_by_block(hash_input(values, range), room, updated), range, hashes);
}

// The sum of numbers in memory, by all threads of a kernel's only block; `room`: a double a warp,
// shared.
__device__ inline double sum_of_parts(const double* parts, Index count, double* room) {
  double sum = 0.0;
  for (Index i = threadIdx.x; i < count; i += kGridThreads) sum += parts[i];
  return block_sum(sum, room);
}

}  // namespace tutti::kernels::cuda
