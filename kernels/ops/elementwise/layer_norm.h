// y = (x - mean(x)) / deviation(x) * weight + bias over the last dimension (Ba, Kiros & Hinton
// 2016), with its gradient.
//
//   x, y      [rows, C]   y may be x
//   rounded   [rows, C]   of y, of dx: beside it or in its place (rounded.h); overlaps no input
//   weight    [C]
//   bias      [C]         null: none
//   mean      [rows]      from forward to backward
//   inverse   [rows]      1 / sqrt(mean((x - mean)^2) + epsilon), from forward to backward
//
//   y  = (x - mean) * inverse * weight + bias          the last step one fused multiply-add
//   n  = (x - mean) * inverse,  g = dy * weight
//   dx = inverse * (g - sum(g) / C - n * (sum(g n) / C)) [+ residual]
//   dweight[c] = chain over rows in order of fma(dy, n), dbias[c] of additions of dy, continued
//   from what they hold
//
// The variance is a second pass over x - mean, so that a large mean costs no digits. Sums over C
// use 16 logical lanes and a fixed tree; square root and division are exact. A row's result depends
// on its row only. Errors: invalid_argument; those of rounded.h; nothing is written then.
#pragma once

#include "kernels/ops/elementwise/rounded.h"
#include "kernels/tensor/matrix.h"
#include "kernels/tensor/op_context.h"
#include "protocol/base/result.h"

namespace tutti::kernels {

struct LayerNormForward {
  ConstMatrix x;
  const float* weight = nullptr;
  const float* bias = nullptr;
  Matrix y;
  float epsilon = 1e-5F;
  float* mean = nullptr;     // null: not kept
  float* inverse = nullptr;  // null: not kept
  RoundedMatrix rounded = {};
};
Result<> layer_norm_forward(const OpContext& ctx, const LayerNormForward& args);

struct LayerNormBackward {
  ConstMatrix dy;
  ConstMatrix x;
  const float* weight = nullptr;
  const float* mean = nullptr;
  const float* inverse = nullptr;
  Matrix dx;                  // written; may be dy or residual
  float* dweight = nullptr;   // [C], continued; null: not wanted
  float* dbias = nullptr;     // [C], continued; null: not wanted
  ConstMatrix residual = {};  // added to dx last; the gradient that goes around the norm
  RoundedMatrix rounded = {};
};
Result<> layer_norm_backward(const OpContext& ctx, const LayerNormBackward& args);

}  // namespace tutti::kernels
