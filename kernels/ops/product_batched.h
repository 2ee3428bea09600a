// Many products of one shape in one call: product b of the batch reads and writes `step` elements
// behind product b - 1.
//
//   nt, nn, tn as in product.h, of fp32 operands, or as in product_bf16.h, of bf16 ones
//   left, right, output, and what the ends read: the first product's
//
// The bits of `count` separate calls, ends included: threads share products, and parts of them
// where the products are few. A step of zero shares an operand, a bias, a residual or a gate; steps
// may be smaller than a matrix where the matrices are bands side by side (heads). Outputs overlap
// neither inputs nor each other.
//
// Errors: invalid_argument (shapes that do not match, a negative count, several products with one
// output), nothing is written then; unsupported: on a device, an arithmetic that the path in use
// does not have, or fp32 operands in a scope of rounding.h.
#pragma once

#include "kernels/ops/product.h"
#include "kernels/ops/product_bf16.h"
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
  const float* bias = nullptr;  // this and what follows as in product.h
  Index bias_step = 0;
  ConstMatrix residual = {};
  Index residual_step = 0;
  std::optional<Activation> activation = {};
  ConstMatrix gate = {};
  Index gate_step = 0;
  BasicMatrix<Bf16> narrow = {};  // in place of `output`, at its step
};
Result<> product_batched(const OpContext& ctx, const BatchedProduct& args);

struct Bf16BatchedProduct {
  ProductForm form = ProductForm::nt;
  Index count = 0;
  Bf16Matrix left;
  Index left_step = 0;
  Bf16Matrix right;
  Index right_step = 0;
  Matrix output;
  Index output_step = 0;
  Bf16Arithmetic arithmetic = Bf16Arithmetic::widened;
  ChainStart start = ChainStart::zero;
  const float* bias = nullptr;
  Index bias_step = 0;
  ConstMatrix residual = {};
  Index residual_step = 0;
  std::optional<Activation> activation = {};
  ConstMatrix gate = {};
  Index gate_step = 0;
  BasicMatrix<Bf16> narrow = {};
};
Result<> product_bf16_batched(const OpContext& ctx, const Bf16BatchedProduct& args);

}  // namespace tutti::kernels
