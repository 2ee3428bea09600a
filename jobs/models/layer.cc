#include "jobs/models/layer.h"

#include <cmath>

#include "kernels/ops/product.h"
#include "kernels/ops/rms_norm.h"
#include "kernels/ops/rotary.h"
#include "kernels/ops/silu_gate.h"
#include "kernels/tensor/buffer.h"
#include "protocol/base/log.h"

namespace tutti::models {

using kernels::ChainStart;
using kernels::product_nn;
using kernels::product_nt;
using kernels::product_tn;

namespace {

template <class Float>
LayerParameters<Float> parameters_in(const ParameterLayout& layout, std::uint32_t layer,
                                     Float* arena) {
  const auto matrix = [&](Role role) {
    const Parameter& parameter = layout.at(role, layer);
    return kernels::BasicMatrix<Float>(arena + parameter.offset,
                                       static_cast<Index>(parameter.shape[0]),
                                       static_cast<Index>(parameter.shape[1]));
  };
  LayerParameters<Float> parameters;
  parameters.attention_norm = arena + layout.at(Role::attention_norm, layer).offset;
  parameters.feed_forward_norm = arena + layout.at(Role::feed_forward_norm, layer).offset;
  parameters.query = matrix(Role::query);
  parameters.key = matrix(Role::key);
  parameters.value = matrix(Role::value);
  parameters.output = matrix(Role::output);
  parameters.gate = matrix(Role::gate);
  parameters.up = matrix(Role::up);
  parameters.down = matrix(Role::down);
  return parameters;
}

// y = x w^T, by the image of w where the pass has one.
void linear(const LayerContext& ctx, const kernels::Product& product,
            WeightImage LayerImages::*image) {
  if (ctx.images != nullptr) return multiply(ctx.op, product, ctx.images->*image);
  must(product_nt(ctx.op, product));
}

void rotate(const LayerContext& ctx, Matrix x, kernels::RotaryApply::Direction direction) {
  must(kernels::rotary_apply(ctx.op, {.x = x,
                                      .head_width = ctx.attention.head_width,
                                      .cosine = ctx.cosine,
                                      .sine = ctx.sine,
                                      .direction = direction}));
}

// The gradients of y = x w^T: the weight's chain goes on, dx begins or goes on.
void linear_backward(const kernels::OpContext& op, ConstMatrix dy, ConstMatrix x, Matrix dweight) {
  must(product_tn(op, {.left = dy, .right = x, .output = dweight, .start = ChainStart::output}));
}

void feed_forward_backward(const LayerContext& ctx, const LayerParameters<const float>& weights,
                           const LayerParameters<float>& gradients, const LayerActivations& act,
                           const LayerScratch& scratch, Matrix dx) {
  linear_backward(ctx.op, dx, act.inner, gradients.down);
  must(product_nn(ctx.op, {.left = dx, .right = weights.down, .output = scratch.dinner}));
  must(kernels::silu_gate_backward(ctx.op, {.dy = scratch.dinner,
                                            .gate = act.gate,
                                            .up = act.up,
                                            .dgate = scratch.dinner,
                                            .dup = scratch.dup}));
  const Matrix dgate = scratch.dinner;
  linear_backward(ctx.op, dgate, act.feed_forward_normed, gradients.gate);
  linear_backward(ctx.op, scratch.dup, act.feed_forward_normed, gradients.up);
  must(product_nn(ctx.op, {.left = dgate, .right = weights.gate, .output = scratch.dnormed}));
  must(product_nn(ctx.op, {.left = scratch.dup,
                           .right = weights.up,
                           .output = scratch.dnormed,
                           .start = ChainStart::output}));
  must(kernels::rms_norm_backward(ctx.op, {.dy = scratch.dnormed,
                                           .x = act.mid,
                                           .weight = weights.feed_forward_norm,
                                           .inverse = act.feed_forward_inverse,
                                           .dx = dx,
                                           .dweight = gradients.feed_forward_norm,
                                           .residual = dx}));
}

void projections_backward(const LayerContext& ctx, const LayerParameters<const float>& weights,
                          const LayerParameters<float>& gradients, const LayerActivations& act,
                          const LayerScratch& scratch, Matrix dx) {
  using Direction = kernels::RotaryApply::Direction;
  rotate(ctx, scratch.dquery, Direction::backward);
  rotate(ctx, scratch.dkey, Direction::backward);
  linear_backward(ctx.op, scratch.dquery, act.attention_normed, gradients.query);
  linear_backward(ctx.op, scratch.dkey, act.attention_normed, gradients.key);
  linear_backward(ctx.op, scratch.dvalue, act.attention_normed, gradients.value);
  must(product_nn(ctx.op,
                  {.left = scratch.dquery, .right = weights.query, .output = scratch.dnormed}));
  must(product_nn(ctx.op, {.left = scratch.dkey,
                           .right = weights.key,
                           .output = scratch.dnormed,
                           .start = ChainStart::output}));
  must(product_nn(ctx.op, {.left = scratch.dvalue,
                           .right = weights.value,
                           .output = scratch.dnormed,
                           .start = ChainStart::output}));
  must(kernels::rms_norm_backward(ctx.op, {.dy = scratch.dnormed,
                                           .x = act.x,
                                           .weight = weights.attention_norm,
                                           .inverse = act.attention_inverse,
                                           .dx = dx,
                                           .dweight = gradients.attention_norm,
                                           .residual = dx}));
}

}  // namespace

namespace {
constexpr int kExitInfrastructure = 3;
}  // namespace

void must(const Result<>& result) {
  if (result) return;
  if (result.error().code == ErrorCode::exhausted) {
    throw kernels::AllocationFailure(result.error());
  }
  if (result.error().code == ErrorCode::unavailable) {
    // A failed device fails every later call too: nothing of this process can go on. Its worker
    // takes the exit code for the infrastructure's (DESIGN 11).
    TUTTI_LOG_ERROR("models", "the rank ends: {}", result.error().message);
    std::_Exit(kExitInfrastructure);
  }
  TUTTI_LOG_ERROR("models", "an op refused its arguments: {}", result.error().message);
  TUTTI_ASSERT(result.ok());
}

void multiply(const kernels::OpContext& ctx, const kernels::Product& product,
              const WeightImage& image) {
  if (image.quantised.outputs() == 0) {
    kernels::Product packed = product;
    packed.packed = &image.fp32;
    return must(product_nt(ctx, packed));
  }
  must(kernels::product_quantised(
      ctx, {.left = product.left,
            .right = &image.quantised,
            .output = product.output,
            .activations = kernels::has_integer_codes(image.quantised.format())
                               ? kernels::Activations::int8
                               : kernels::Activations::exact,
            .start = product.start,
            .bias = product.bias,
            .residual = product.residual,
            .activation = product.activation,
            .gate = product.gate}));
}

LayerParameters<const float> layer_weights(const ParameterLayout& layout, std::uint32_t layer,
                                           const float* arena) {
  return parameters_in(layout, layer, arena);
}

LayerParameters<float> layer_gradients(const ParameterLayout& layout, std::uint32_t layer,
                                       float* arena) {
  return parameters_in(layout, layer, arena);
}

kernels::AttentionShape attention_shape(const DecoderDescription& description) {
  return {.heads = description.heads,
          .kv_heads = description.kv_heads,
          .head_width = description.head_dim,
          .scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(description.head_dim)))};
}

void project(const LayerContext& ctx, const LayerParameters<const float>& weights,
             const LayerActivations& act) {
  must(kernels::rms_norm_forward(ctx.op,
                                 {.x = act.x,
                                  .weight = weights.attention_norm,
                                  .y = act.attention_normed,
                                  .epsilon = static_cast<float>(ctx.description.norm_epsilon),
                                  .inverse = act.attention_inverse}));
  const ConstMatrix normed = act.attention_normed;
  linear(ctx, {.left = normed, .right = weights.query, .output = act.query}, &LayerImages::query);
  linear(ctx, {.left = normed, .right = weights.key, .output = act.key}, &LayerImages::key);
  linear(ctx, {.left = normed, .right = weights.value, .output = act.value}, &LayerImages::value);
  rotate(ctx, act.query, kernels::RotaryApply::Direction::forward);
  rotate(ctx, act.key, kernels::RotaryApply::Direction::forward);
}

void finish(const LayerContext& ctx, const LayerParameters<const float>& weights,
            const LayerActivations& act, Matrix out) {
  linear(ctx, {.left = act.attended, .right = weights.output, .output = act.mid, .residual = act.x},
         &LayerImages::output);
  must(kernels::rms_norm_forward(ctx.op,
                                 {.x = act.mid,
                                  .weight = weights.feed_forward_norm,
                                  .y = act.feed_forward_normed,
                                  .epsilon = static_cast<float>(ctx.description.norm_epsilon),
                                  .inverse = act.feed_forward_inverse}));
  const ConstMatrix normed = act.feed_forward_normed;
  linear(ctx, {.left = normed, .right = weights.gate, .output = act.gate}, &LayerImages::gate);
  kernels::Product up{.left = normed, .right = weights.up, .output = act.up};
  const bool keeps_up = act.inner.data != act.up.data;
  if (!keeps_up) {
    up.activation = kernels::Activation::silu;
    up.gate = act.gate;
  }
  linear(ctx, up, &LayerImages::up);
  if (keeps_up) {
    must(kernels::silu_gate_forward(ctx.op, {.gate = act.gate, .up = act.up, .y = act.inner}));
  }
  linear(ctx, {.left = act.inner, .right = weights.down, .output = out, .residual = act.mid},
         &LayerImages::down);
}

void backward(const LayerContext& ctx, const LayerParameters<const float>& weights,
              const LayerParameters<float>& gradients, const LayerActivations& act,
              const LayerScratch& scratch, std::span<const std::int32_t> sample_offsets,
              Matrix dx) {
  feed_forward_backward(ctx, weights, gradients, act, scratch, dx);
  linear_backward(ctx.op, dx, act.attended, gradients.output);
  must(product_nn(ctx.op, {.left = dx, .right = weights.output, .output = scratch.dattended}));
  must(kernels::attention_backward(ctx.op, {.shape = ctx.attention,
                                            .q = act.query,
                                            .k = act.key,
                                            .v = act.value,
                                            .out = act.attended,
                                            .dout = scratch.dattended,
                                            .lse = act.lse,
                                            .sample_offsets = sample_offsets,
                                            .dq = scratch.dquery,
                                            .dk = scratch.dkey,
                                            .dv = scratch.dvalue}));
  projections_backward(ctx, weights, gradients, act, scratch, dx);
}

}  // namespace tutti::models
