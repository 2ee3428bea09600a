#include "jobs/models/parts/linear.h"

#include "jobs/models/layer.h"
#include "protocol/base/assert.h"

namespace tutti::models {

using kernels::ChainStart;

void linear_forward(const kernels::OpContext& ctx, WeightOrder order,
                    const LinearParameters<const float>& parameters, kernels::Product product) {
  product.right = parameters.weight;
  product.right_rounded = parameters.rounded;
  product.eights = kernels::Eights::allowed;
  product.right_fp8 = parameters.fp8;
  product.bias = parameters.bias;
  must(order == WeightOrder::outputs ? product_nt(ctx, product) : product_nn(ctx, product));
}

void linear_backward(const kernels::OpContext& ctx, WeightOrder order, const ProductRows& dy,
                     const ProductRows& x, const LinearParameters<float>& gradients) {
  const ProductRows& left = order == WeightOrder::outputs ? dy : x;
  const ProductRows& right = order == WeightOrder::outputs ? x : dy;
  must(product_tn(ctx, {.left = left.wide,
                        .right = right.wide,
                        .output = gradients.weight,
                        .start = ChainStart::output,
                        .left_rounded = left.rounded,
                        .right_rounded = right.rounded}));
  if (gradients.bias != nullptr) {
    TUTTI_ASSERT(dy.wide);  // else whoever made dy summed it
    must(kernels::column_sums(
        ctx, {.x = dy.wide, .output = gradients.bias, .start = ChainStart::output}));
  }
}

void linear_input_gradient(const kernels::OpContext& ctx, WeightOrder order, const ProductRows& dy,
                           const LinearParameters<const float>& parameters, kernels::Matrix dx,
                           ChainStart start) {
  const kernels::Product product{.left = dy.wide,
                                 .right = parameters.weight,
                                 .output = dx,
                                 .start = start,
                                 .left_rounded = dy.rounded,
                                 .right_rounded = parameters.rounded,
                                 .eights = kernels::Eights::allowed,
                                 .right_fp8 = parameters.fp8};
  must(order == WeightOrder::outputs ? product_nn(ctx, product) : product_nt(ctx, product));
}

}  // namespace tutti::models
