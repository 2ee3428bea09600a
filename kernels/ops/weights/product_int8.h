// Products of int8 activations with int8 weights: y = x w^T, where x was rounded before, once for
// all products that read it.
//
//   codes   [M, K]   int8, -127 .. 127, rows at their stride
//   scales  [M]      f32: a value is scale * code
//   right   an int8_channel image, N outputs of K inputs (quantised_weight.h)
//   output  [M, N]   f32 = start + f32(sum of the codes' products) * (weight scale * scale), then
//                    the ends of product.h
//
// The sums are exact integers, so K may be cut and added in any order, and all paths and any number
// of threads give the same bits: with to_int8_rows those of product_quantised by the same weight.
// Row rule as there. Limits: K up to 131,072. Errors: invalid_argument (a code of -128 too);
// nothing is written then.
#pragma once

#include "kernels/ops/weights/quantised_weight.h"

namespace tutti::kernels {

struct Int8Product {
  BasicMatrix<const std::int8_t> codes;
  const float* scales = nullptr;
  const QuantisedWeight* right = nullptr;
  Matrix output;
  ChainStart start = ChainStart::zero;
  const float* bias = nullptr;  // this and what follows as in product.h
  ConstMatrix residual = {};
  std::optional<Activation> activation = {};
  ConstMatrix gate = {};
  BasicMatrix<Bf16> narrow = {};
};
Result<> product_int8(const OpContext& ctx, const Int8Product& args);

// scale = max |x| / 127 of a row, code = nearest(x * (127 / max)), ties to even; a row with a NaN
// or an infinity has codes 0 and scale NaN. Errors: invalid_argument.
struct ToInt8Rows {
  ConstMatrix x;
  BasicMatrix<std::int8_t> codes;  // shape of x
  float* scales = nullptr;         // [rows]
};
Result<> to_int8_rows(const OpContext& ctx, const ToInt8Rows& args);

}  // namespace tutti::kernels
