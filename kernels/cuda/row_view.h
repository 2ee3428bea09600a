// A matrix as kernels take it: where row r begins.
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

}  // namespace tutti::kernels::cuda
