// Token embedding: a row of the table for each token, and the gradient that adds rows in token
// order.
//
//   table, dtable   [V, C]
//   tokens          [M]      0 .. V-1
//   output, dout    [M, C]
//
// Backward: dtable[v] is a chain of additions over the tokens equal to v, in order, continued from
// what it holds. Errors: invalid_argument (also a token outside of the table); nothing is written
// then.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/ops/elementwise/bf16.h"
#include "kernels/tensor/matrix.h"
#include "kernels/tensor/op_context.h"
#include "protocol/base/result.h"

namespace tutti::kernels {

struct EmbeddingForward {
  ConstMatrix table;
  // The table's rows in bf16, one after the other, read in place of table.data; null: none.
  const Bf16* bf16 = nullptr;
  std::span<const std::int32_t> tokens;
  Matrix output;
};
Result<> embedding_forward(const OpContext& ctx, const EmbeddingForward& args);

struct EmbeddingBackward {
  ConstMatrix dout;
  std::span<const std::int32_t> tokens;
  Matrix dtable;
};
Result<> embedding_backward(const OpContext& ctx, const EmbeddingBackward& args);

}  // namespace tutti::kernels
