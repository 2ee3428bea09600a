// The gradient to the inputs of a layer whose weight is quantised and frozen: dx = dy w, as
// low-rank adapters over a base in few bits need it (Dettmers et al. 2023, QLoRA).
//
//   left    [M, N]   f32 or bf16 (read as from_bf16 gives it), the gradient of the outputs
//   right   N rows (outputs) of K inputs, the image that the forward product reads
//   output  [M, K]   f32 = start + the chain over ascending outputs, then + residual
//
// The weight is read as f32, some outputs at a time, so the bits are those of product_nn by the
// values of dequantise_row, on all paths, for any number of threads, and on a GPU. That is the
// gradient of Activations::exact; that of int8 takes the rounding of x as if it were none, as is
// usual.
//
// There is no tn: a weight in few bits is not moved by a gradient, and what a gradient of it would
// be summed into is no image. An adapter's gradients are products of f32.
//
// Row rule as in product.h. Errors: invalid_argument; those of the device, and unsupported for bf16
// on one.
#pragma once

#include "kernels/ops/weights/quantised_weight.h"

namespace tutti::kernels {

struct QuantisedProductNn {
  ConstMatrix left;
  const QuantisedWeight* right = nullptr;
  Matrix output;
  ChainStart start = ChainStart::zero;
  ConstMatrix residual = {};                 // shape of output; not output itself
  BasicMatrix<const Bf16> narrow_left = {};  // in place of `left`, which is empty then
};
Result<> product_quantised_nn(const OpContext& ctx, const QuantisedProductNn& args);

}  // namespace tutti::kernels
