// y = x / rms(x) * weight over the last dimension (Zhang & Sennrich 2019), with its gradient.
//
//   x, y      [rows, C]   y may be x
//   rounded   [rows, C]   of y, of dx: beside it or in its place (rounded.h); overlaps no input
//   weight    [C]
//   inverse   [rows]      1 / sqrt(mean(x^2) + epsilon), from forward to backward
//
//   y  = (x * inverse) * weight
//   dx = inverse * (dy * weight) - x * (inverse^3 / C * sum(dy * weight * x)) [+ residual]
//   dweight[c] = chain over rows in order of fma(dy, x * inverse), continued from what it holds
//
// Sums over C use 16 logical lanes and a fixed tree; square root and division are exact. A row's
// result depends on its row only. Errors: invalid_argument; those of rounded.h; nothing is written
// then.
#pragma once

#include "kernels/ops/elementwise/rounded.h"
#include "kernels/tensor/matrix.h"
#include "kernels/tensor/op_context.h"
#include "protocol/base/result.h"

namespace tutti::kernels {

struct RmsNormForward {
  ConstMatrix x;
  const float* weight = nullptr;
  Matrix y;
  float epsilon = 1e-5F;
  float* inverse = nullptr;
  RoundedMatrix rounded = {};
};
Result<> rms_norm_forward(const OpContext& ctx, const RmsNormForward& args);

struct RmsNormBackward {
  ConstMatrix dy;
  ConstMatrix x;
  const float* weight = nullptr;
  const float* inverse = nullptr;
  Matrix dx;                  // written; may be dy or residual
  float* dweight = nullptr;   // [C], continued; null: not wanted
  ConstMatrix residual = {};  // added to dx last; the gradient that goes around the norm
  RoundedMatrix rounded = {};
};
Result<> rms_norm_backward(const OpContext& ctx, const RmsNormBackward& args);

}  // namespace tutti::kernels
