// What the fp32 kernels of attention forward are told, whether a block has a tile of queries
// (attention_forward.cu) or one row's heads (attention_decode.cu); for kernels.
#pragma once

#include <cstdint>

#include "kernels/cuda/attention/attention_form.h"
#include "kernels/cuda/attention/chunks.h"
#include "kernels/cuda/row_view.h"
#include "kernels/cuda/tensor_core.h"

namespace tutti::kernels::cuda {

// Rows [row, row + rows) are positions [position, ...) of one sequence of `length`, whose keys
// begin at row `keys` of k and v, or at entry `keys` of the page list.
struct Task {
  std::int32_t row;
  std::int32_t rows;
  std::int32_t position;
  std::int32_t length;
  std::int32_t keys;
};

struct Attend {
  Rows<const float> q, k, v;  // k and v: null with pages
  Rows<float> out;
  float* const* pages;  // null: k and v
  const Task* tasks;
  float* lse;
  float* parts;  // null: each block walks over all chunks
  Index heads, group, width, chunks;
  Sight sight;
  ScoreRule rule;
  PageLayout layout;

  // The last key block that a query of the task sees, and the first.
  __device__ Index last_block(const Task& task) const {
    return (sight.end(task.position + task.rows - 1, task.length) - 1) / kKeyBlock;
  }
  __device__ Index first_block(const Task& task) const {
    return sight.first(task.position) / kKeyBlock;
  }
};

// A chunk's result of one query and head in scratch memory: value sums, then top and total.
__device__ inline Index part_at(const Attend& a, Index row, Index head, Index chunk) {
  return ((row * a.heads + head) * a.chunks + chunk) * (a.width + 2);
}

__device__ __forceinline__ Index within_block(Index key) {
  return key < 0 ? 0 : (key < kKeyBlock ? key : kKeyBlock);
}

__device__ __forceinline__ float widened(float x) { return x; }
__device__ __forceinline__ float widened(Bf16 x) { return from_bf16(x); }
__device__ __forceinline__ float widened(std::int8_t x) { return static_cast<float>(x); }

// One launch over tasks of one row each, over cache pages: the query heads of a key head share a
// block, and so its keys. The bits are those of a tile of queries. `spread`: over how many thread
// blocks chunks go, where parts are wanted, else 1.
void launch_decode(cudaStream_t stream, const Attend& a, unsigned tasks, unsigned spread);
// How many thread blocks a task is without chunks.
Index decode_blocks(const Attend& a);

}  // namespace tutti::kernels::cuda
