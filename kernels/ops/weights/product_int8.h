// Products of int8 activations with quantised weights: y = x w^T, where x was rounded
// before, once for all products that read it.
//
//   codes   [M, K]      int8, -127 .. 127, rows at their stride
//   scales  [M, 1]      f32, of a row: a value is scale * code
//           [M, cells]  or of each cell of 32 inputs; not by an int8_channel weight
//   right   an image of any format, N outputs of K inputs (quantised_weight.h)
//   output  [M, N]      f32 = start + the sums, then the ends of product.h
//
// The sums are those of Activations::int8 there: by an int8_channel weight
// f32(sum of the codes' products) * (weight scale * scale), by others a chain over ascending cells,
// each with its scale of x. So with the scales of to_int8_rows, by row or by cell as the format has
// them, the bits are those of product_quantised by the same weight; all paths and any number of
// threads give the same.
// Row rule as there. Limits: K up to 131,072 for int8_channel. Errors: invalid_argument (a code of
// -128 too); nothing is written then.
#pragma once

#include "kernels/ops/weights/quantised_weight.h"

namespace tutti::kernels {

struct Int8Product {
  BasicMatrix<const std::int8_t> codes;
  ConstMatrix scales;
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

// Of a row, or of each cell of 32 inputs (the last may be shorter): scale = max |x| / 127,
// code = nearest(x * (127 / max)), ties to even; a NaN or an infinity makes the codes 0 and the
// scale NaN. Errors: invalid_argument.
struct ToInt8Rows {
  ConstMatrix x;
  BasicMatrix<std::int8_t> codes;  // shape of x
  Matrix scales;                   // [rows, 1], or [rows, cells]
};
Result<> to_int8_rows(const OpContext& ctx, const ToInt8Rows& args);

}  // namespace tutti::kernels
