// y = exp(x - max) / sum(exp(x - max)) over the last dimension, with its gradient: routers,
// pooling, probabilities that are shown. (Attention and the loss have their own.)
//
//   x, y, dy, dx   [rows, C]   outputs may be inputs
//
//   dx = y * (dy - sum(dy y))
//
// Sums over C use 16 logical lanes and a fixed tree. A row without columns is left alone; a row of
// minus infinities gives NaN. Errors: invalid_argument; nothing is written then.
#pragma once

#include "kernels/tensor/matrix.h"
#include "kernels/tensor/op_context.h"
#include "protocol/base/result.h"

namespace tutti::kernels {

struct SoftmaxForward {
  ConstMatrix x;
  Matrix y;
};
Result<> softmax_forward(const OpContext& ctx, const SoftmaxForward& args);

struct SoftmaxBackward {
  ConstMatrix dy;
  ConstMatrix y;
  Matrix dx;
};
Result<> softmax_backward(const OpContext& ctx, const SoftmaxBackward& args);

}  // namespace tutti::kernels
