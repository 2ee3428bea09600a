// Sums over the rows of each column (column_sums of ops/product.h), also for kernels that make the
// numbers themselves: cut into pieces of kRowsInPiece rows, a chain each, that are added in order;
// the first goes on from what is held. A thread has a column of a piece, whoever sums.
//
//   SumPieces sums(rows, width, start);          sums.pieces = memory of sums.floats()
//   TUTTI_LAUNCH(stream, sums.shape(), kernel, ..., sums);
//   add_sums(stream, sums, output);
#pragma once

#include "kernels/cuda/launch.h"
#include "kernels/tensor/matrix.h"
#include "protocol/base/result.h"

namespace tutti::kernels::cuda {

inline constexpr unsigned kSumThreads = 128;

// sum + load(begin) + ... + load(end - 1), one after the other; kAhead loads are on their way
// together, as few threads have columns (kernels/lab/gpu.md).
template <unsigned kAhead, class Load>
__device__ __forceinline__ float add_chain(float sum, Index begin, Index end, const Load& load) {
  for (Index first = begin; first < end; first += kAhead) {
    float next[kAhead];
    for (unsigned i = 0; i < kAhead; ++i) next[i] = first + i < end ? load(first + i) : 0.0F;
    for (unsigned i = 0; i < kAhead; ++i) {
      if (first + i < end) sum += next[i];
    }
  }
  return sum;
}

struct SumPieces {
  static constexpr Index kRowsInPiece = 256;

  SumPieces(Index rows_in, Index width_in, const float* start_in)
      : rows(rows_in), width(width_in), start(start_in) {}
  unsigned count() const { return blocks_for(rows, kRowsInPiece); }
  Index floats() const { return count() * width; }
  LaunchShape shape() const { return {dim3(blocks_for(width, kSumThreads), count()), kSumThreads}; }

  Index rows, width;
  const float* start;  // what the chains go on from; null: zeros
  float* pieces = nullptr;
};

struct SumPiece {
  __device__ explicit SumPiece(const SumPieces& all)
      : column(static_cast<Index>(blockIdx.x) * kSumThreads + threadIdx.x),
        begin(blockIdx.y * SumPieces::kRowsInPiece),
        end(begin + SumPieces::kRowsInPiece < all.rows ? begin + SumPieces::kRowsInPiece
                                                       : all.rows) {}
  __device__ bool is_in(const SumPieces& all) const { return column < all.width; }
  __device__ float start(const SumPieces& all) const {
    return begin == 0 && all.start != nullptr ? all.start[column] : 0.0F;
  }
  __device__ void store(const SumPieces& all, float sum) const {
    all.pieces[blockIdx.y * all.width + column] = sum;
  }
  Index column, begin, end;
};

void add_sums(cudaStream_t stream, const SumPieces& sums, float* output);

}  // namespace tutti::kernels::cuda
