// A linear layer y = x W^T + b in either order of its weight, and its gradients.
//
//   x, dx   [rows, inputs]      y, dy   [rows, outputs]      bias, dbias   [outputs]
//   weight, dweight             [outputs, inputs], or [inputs, outputs] (WeightOrder::inputs)
//
// Rows may be rounded (memory_plan.h). On a device in fp8, y and dx are products of codes, where
// the weight's shape has any; gradients of weights are of bf16 numbers. A weight may be a band of a
// wider matrix. Each output is one chain over ascending inputs in both orders, so both give the
// same bits on a CPU (kernels/ops/product.h). A refused argument is a broken invariant (must,
// layer.h).
#pragma once

#include "jobs/models/description.h"
#include "jobs/models/memory_plan.h"
#include "kernels/ops/product.h"

namespace tutti::models {

template <class Float>
struct LinearParameters {
  kernels::BasicMatrix<Float> weight;
  Float* bias = nullptr;  // null: it has none
  // The weight as products read it (rounded_weights.h); null: they round it.
  kernels::ConstRoundedMatrix rounded = {};
  // Its codes (fp8_weights.h); null: products in fp8 make them.
  kernels::Fp8Weight fp8 = {};
};

// `product` gives left, output and ends; right and bias are those of the layer.
void linear_forward(const kernels::OpContext& ctx, WeightOrder order,
                    const LinearParameters<const float>& parameters, kernels::Product product);

// The parameters' chains go on. The bias's gradient is of fp32 rows; without them, who rounded them
// summed them.
void linear_backward(const kernels::OpContext& ctx, WeightOrder order, const ProductRows& dy,
                     const ProductRows& x, const LinearParameters<float>& gradients);

// dx = dy W; `start` output adds to what dx holds.
void linear_input_gradient(const kernels::OpContext& ctx, WeightOrder order, const ProductRows& dy,
                           const LinearParameters<const float>& parameters, kernels::Matrix dx,
                           kernels::ChainStart start = kernels::ChainStart::zero);

}  // namespace tutti::models
