// A matrix as kernels take it: where row r begins; and how a block's threads walk over some of it.
#pragma once

#include "kernels/cuda/launch.h"
#include "kernels/tensor/matrix.h"

namespace tutti::kernels::cuda {

template <class T>
struct Rows {
  explicit Rows(const BasicMatrix<T>& matrix) : data(matrix.data), stride(matrix.stride) {}
  __device__ T* at(Index row) const { return data + row * stride; }

  T* data;
  Index stride;
};

// Element `threadIdx.x` of rows of `width` numbers that follow each other, and then every `threads`
// elements further: two short divisions at the start in place of two long ones for each element.
//
//   for (TileWalk at(width, kThreads); at.row < rows; at.next()) ... at.column
struct TileWalk {
  __device__ __forceinline__ TileWalk(unsigned width_in, unsigned threads)
      : row(threadIdx.x / width_in),
        column(threadIdx.x - row * width_in),
        width(width_in),
        rows_on(threads / width_in),
        columns_on(threads - rows_on * width_in) {}

  __device__ __forceinline__ void next() {
    row += rows_on;
    column += columns_on;
    if (column >= width) {
      column -= width;
      ++row;
    }
  }

  unsigned row, column;
  unsigned width, rows_on, columns_on;
};

}  // namespace tutti::kernels::cuda
