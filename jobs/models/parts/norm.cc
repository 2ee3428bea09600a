#include "jobs/models/parts/norm.h"

#include "jobs/models/layer.h"
#include "kernels/ops/elementwise/layer_norm.h"
#include "kernels/ops/rms_norm.h"

namespace tutti::models {

void norm_forward(const kernels::OpContext& ctx, const DecoderDescription& description,
                  const NormForward& args) {
  const auto epsilon = static_cast<float>(description.norm_epsilon);
  if (description.norm == Norm::rms) {
    return must(kernels::rms_norm_forward(ctx, {.x = args.x,
                                                .weight = args.parameters.weight,
                                                .y = args.y.wide,
                                                .epsilon = epsilon,
                                                .inverse = args.kept.inverse,
                                                .rounded = args.y.rounded}));
  }
  must(kernels::layer_norm_forward(ctx, {.x = args.x,
                                         .weight = args.parameters.weight,
                                         .bias = args.parameters.bias,
                                         .y = args.y.wide,
                                         .epsilon = epsilon,
                                         .mean = args.kept.mean,
                                         .inverse = args.kept.inverse,
                                         .rounded = args.y.rounded}));
}

void norm_backward(const kernels::OpContext& ctx, const DecoderDescription& description,
                   const NormBackward& args) {
  if (description.norm == Norm::rms) {
    return must(kernels::rms_norm_backward(ctx, {.dy = args.dy,
                                                 .x = args.x,
                                                 .weight = args.parameters.weight,
                                                 .inverse = args.kept.inverse,
                                                 .dx = args.dx.wide,
                                                 .dweight = args.gradients.weight,
                                                 .residual = args.residual,
                                                 .rounded = args.dx.rounded}));
  }
  must(kernels::layer_norm_backward(ctx, {.dy = args.dy,
                                          .x = args.x,
                                          .weight = args.parameters.weight,
                                          .mean = args.kept.mean,
                                          .inverse = args.kept.inverse,
                                          .dx = args.dx.wide,
                                          .dweight = args.gradients.weight,
                                          .dbias = args.gradients.bias,
                                          .residual = args.residual,
                                          .rounded = args.dx.rounded}));
}

}  // namespace tutti::models
