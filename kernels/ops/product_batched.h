// Many products of one shape in one call: product b of the batch reads and writes `step` floats
// behind product b - 1.
//
//   nt, nn, tn as in product.h; left, right, output: the first product's
//
// The bits of `count` separate calls: threads share products, and parts of them where the products
// are few. A step of zero shares an operand; steps may be smaller than a matrix where the matrices
// are bands side by side (heads). Outputs overlap neither inputs nor each other.
//
// Errors: invalid_argument (shapes that do not match, a negative count, several products with one
// output), nothing is written then; unsupported on a device.
#pragma once

#include "kernels/ops/product.h"
#include "kernels/tensor/device.h"

namespace tutti::kernels {

struct BatchedProduct {
  ProductForm form = ProductForm::nt;
  Index count = 0;
  ConstMatrix left;
  Index left_step = 0;
  ConstMatrix right;
  Index right_step = 0;
  Matrix output;
  Index output_step = 0;
  ChainStart start = ChainStart::zero;
};
Result<> product_batched(const OpContext& ctx, const BatchedProduct& args);

}  // namespace tutti::kernels
