#include "jobs/models/parts/linear.h"

#include "jobs/models/layer.h"

namespace tutti::models {

using kernels::ChainStart;

void linear_forward(const kernels::OpContext& ctx, WeightOrder order,
                    const LinearParameters<const float>& parameters, kernels::Product product) {
  product.right = parameters.weight;
  product.bias = parameters.bias;
  must(order == WeightOrder::outputs ? product_nt(ctx, product) : product_nn(ctx, product));
}

void linear_backward(const kernels::OpContext& ctx, WeightOrder order, kernels::ConstMatrix dy,
                     kernels::ConstMatrix x, const LinearParameters<float>& gradients) {
  const bool outputs = order == WeightOrder::outputs;
  must(product_tn(ctx, {.left = outputs ? dy : x,
                        .right = outputs ? x : dy,
                        .output = gradients.weight,
                        .start = ChainStart::output}));
  if (gradients.bias != nullptr) {
    must(kernels::column_sums(ctx,
                              {.x = dy, .output = gradients.bias, .start = ChainStart::output}));
  }
}

void linear_input_gradient(const kernels::OpContext& ctx, WeightOrder order,
                           kernels::ConstMatrix dy, const LinearParameters<const float>& parameters,
                           kernels::Matrix dx, ChainStart start) {
  const kernels::Product product{
      .left = dy, .right = parameters.weight, .output = dx, .start = start};
  must(order == WeightOrder::outputs ? product_nn(ctx, product) : product_nt(ctx, product));
}

}  // namespace tutti::models
