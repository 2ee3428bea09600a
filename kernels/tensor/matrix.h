// A view of fp32 numbers as rows: what every op takes and gives.
//
// Row r, column c lies at data[r * stride + c]; stride >= columns, so that a view can be a band of
// a wider matrix (the queries inside a fused query-key-value product). There is no [batch, time]: a
// batch is token rows with sample offsets.
//
// Ownership: none; the caller keeps the memory alive until the op returns.
#pragma once

#include <cstdint>

#include "protocol/base/assert.h"

namespace tutti::kernels {

using Index = std::int64_t;

template <class T>
struct BasicMatrix {
  T* data = nullptr;
  Index rows = 0;
  Index columns = 0;
  Index stride = 0;

  BasicMatrix() = default;
  BasicMatrix(T* data_, Index rows_, Index columns_)
      : data(data_), rows(rows_), columns(columns_), stride(columns_) {}
  BasicMatrix(T* data_, Index rows_, Index columns_, Index stride_)
      : data(data_), rows(rows_), columns(columns_), stride(stride_) {}
  template <class U>
  requires(!__is_same(U, T) && __is_same(const U, T))
      BasicMatrix(const BasicMatrix<U>& other)  // NOLINT: a mutable view may be read
      : data(other.data), rows(other.rows), columns(other.columns), stride(other.stride) {}

  T* row(Index r) const { return data + r * stride; }
  explicit operator bool() const { return data != nullptr; }

  // Rows [begin, begin + count) and columns [begin, begin + count) of this view.
  BasicMatrix row_range(Index begin, Index count) const {
    TUTTI_ASSERT(begin >= 0 && count >= 0 && begin + count <= rows);
    return {data + begin * stride, count, columns, stride};
  }
  BasicMatrix column_range(Index begin, Index count) const {
    TUTTI_ASSERT(begin >= 0 && count >= 0 && begin + count <= columns);
    return {data + begin, rows, count, stride};
  }
};

using Matrix = BasicMatrix<float>;
using ConstMatrix = BasicMatrix<const float>;

}  // namespace tutti::kernels
