// Attention's arithmetic on a GPU, as every fp32 form of it shares it (prefill, chunks, decode), so
// that all give the same bits; for kernels.
//
// A query's keys lie on the position grid in blocks of kKeyBlock and chunks of kChunkBlocks blocks.
// Within a chunk the softmax is online: scores are chains over D, the maximum may grow from block
// to block and what was summed under the old one shrinks; value sums are chains over keys. Each
// chunk starts anew, and chunks are merged in ascending order: so several thread blocks may share
// the keys of one query (decode) without changing a bit.
//
// Four neighbouring lanes serve one query: lane c has keys c, c + 4, ... of a block and columns c,
// c + 4, ... of the sum.
#pragma once

#include "kernels/cuda/attention/chunks.h"
#include "kernels/cuda/elementary.h"
#include "kernels/cuda/launch.h"
#include "kernels/ops/attention.h"

namespace tutti::kernels::cuda {

inline constexpr unsigned kQueryTile = 32;  // queries of one thread block
inline constexpr unsigned kQueryLanes = 4;  // threads of one query
inline constexpr unsigned kAttentionThreads = kQueryTile * kQueryLanes;

__device__ __forceinline__ float lanes_sum(float x) {
  x += __shfl_xor_sync(kAllLanes, x, 1U);
  return x + __shfl_xor_sync(kAllLanes, x, 2U);
}
__device__ __forceinline__ float lanes_max(float x) {
  const float a = __shfl_xor_sync(kAllLanes, x, 1U);
  x = a > x ? a : x;
  const float b = __shfl_xor_sync(kAllLanes, x, 2U);
  return b > x ? b : x;
}

// What exponents are relative to, given the largest score so far: zero while there are only scores
// that overflowed, which then weigh nothing, since exp(-inf - 0) is 0 and exp(-inf + inf) is not.
__device__ __forceinline__ float offset_under(float top) { return top == -INFINITY ? 0.0F : top; }

// Running softmax of one query over one chunk: `sum` are value sums of this lane's columns.
template <int kColumns>
struct Softmax {
  float top;
  float total;
  float sum[kColumns];

  __device__ __forceinline__ void clear() {
    top = 0.0F;
    total = 0.0F;
    for (int i = 0; i < kColumns; ++i) sum[i] = 0.0F;
  }
  __device__ __forceinline__ void raise(float block_top, bool first) {
    if (first) {
      top = block_top;
    } else if (block_top > top) {
      const float shrink = exp32(top - block_top);
      top = block_top;
      total *= shrink;
      for (int i = 0; i < kColumns; ++i) sum[i] *= shrink;
    }
  }
};

// How two chunks become one: the factors of what was there and of what comes.
struct Merge {
  float top, old_factor, new_factor;
};
__device__ __forceinline__ Merge merge_chunks(float old_top, float new_top) {
  const float top = new_top > old_top ? new_top : old_top;
  const float offset = offset_under(top);
  return {top, exp32(old_top - offset), exp32(new_top - offset)};
}

}  // namespace tutti::kernels::cuda
