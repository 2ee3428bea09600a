#include "jobs/models/layer.h"

#include <cmath>

#include "kernels/ops/add.h"
#include "kernels/ops/elementwise/activation.h"
#include "kernels/ops/product.h"
#include "kernels/ops/rotary.h"
#include "kernels/ops/silu_gate.h"
#include "kernels/tensor/buffer.h"
#include "kernels/tensor/device.h"
#include "kernels/tensor/device_failure.h"
#include "protocol/base/log.h"

namespace tutti::models {

using kernels::ChainStart;
using kernels::product_nt;

namespace {

// Where the parameters of one layer lie in an arena.
template <class Float>
class LayerArena {
 public:
  LayerArena(const ParameterLayout& layout, std::uint32_t layer, Float* arena)
      : layout_(layout), layer_(layer), arena_(arena) {}

  Float* vector(Role role) const {
    const Parameter* const parameter = layout_.find(role, layer_);
    return parameter == nullptr ? nullptr : arena_ + parameter->offset;
  }
  NormParameters<Float> norm(Role weight, Role bias) const {
    return {vector(weight), vector(bias)};
  }
  // Without data where the model has no such matrix.
  kernels::BasicMatrix<Float> matrix(Role role) const {
    const Parameter* const parameter = layout_.find(role, layer_);
    if (parameter == nullptr) return {};
    return {arena_ + parameter->offset, static_cast<Index>(parameter->shape[0]),
            static_cast<Index>(parameter->shape[1])};
  }
  LinearParameters<Float> linear(Role weight, Role bias) const {
    return {matrix(weight), vector(bias)};
  }
  // The index-th third of the outputs of query, key and value in one.
  LinearParameters<Float> third(Index index) const {
    const LinearParameters<Float> all = linear(Role::projections, Role::projections_bias);
    const bool in_rows = layout_.order() == WeightOrder::outputs;
    const Index width = (in_rows ? all.weight.rows : all.weight.columns) / 3;
    return {in_rows ? all.weight.row_range(index * width, width)
                    : all.weight.column_range(index * width, width),
            all.bias == nullptr ? nullptr : all.bias + index * width};
  }

 private:
  const ParameterLayout& layout_;
  std::uint32_t layer_;
  Float* arena_;
};

template <class Float>
LayerParameters<Float> parameters_in(const ParameterLayout& layout, std::uint32_t layer,
                                     Float* arena) {
  const LayerArena<Float> own(layout, layer, arena);
  LayerParameters<Float> parameters;
  parameters.attention_norm = own.norm(Role::attention_norm, Role::attention_norm_bias);
  parameters.feed_forward_norm = own.norm(Role::feed_forward_norm, Role::feed_forward_norm_bias);
  if (layout.find(Role::projections, layer) != nullptr) {
    parameters.query = own.third(0);
    parameters.key = own.third(1);
    parameters.value = own.third(2);
  } else {
    parameters.query = {own.matrix(Role::query)};
    parameters.key = {own.matrix(Role::key)};
    parameters.value = {own.matrix(Role::value)};
  }
  parameters.output = own.linear(Role::output, Role::output_bias);
  parameters.gate = {own.matrix(Role::gate)};
  parameters.up = own.linear(Role::up, Role::up_bias);
  parameters.down = own.linear(Role::down, Role::down_bias);
  return parameters;
}

// By the image of the weight where the pass has one.
void linear(const LayerContext& ctx, const LinearParameters<const float>& parameters,
            kernels::Product product, WeightImage LayerImages::*image) {
  if (ctx.images == nullptr) {
    return linear_forward(ctx.op, ctx.description.order, parameters, product);
  }
  product.right = parameters.weight;
  product.bias = parameters.bias;
  multiply(ctx.op, product, ctx.images->*image);
}

bool turns(const LayerContext& ctx) { return ctx.description.positions == Positions::rotary; }

// In place, or, where rows are rounded, into these.
void rotate(const LayerContext& ctx, const ProductRows& x,
            kernels::RotaryApply::Direction direction) {
  must(kernels::rotary_apply(ctx.op, {.x = x.wide,
                                      .head_width = ctx.attention.head_width,
                                      .cosine = ctx.cosine,
                                      .sine = ctx.sine,
                                      .direction = direction,
                                      .rounded = x.rounded}));
}

void round(const LayerContext& ctx, const ProductRows& x) {
  if (x.rounded) must(ctx.op.device->round(x.wide, x.rounded));
}

// A linear layer of `ctx` in backward: the gradients of its parameters, and into `dx` that of what
// it read.
struct LinearStep {
  const LayerContext& ctx;
  ProductRows x;
  Matrix dx;

  void parameters(const ProductRows& dy, const LinearParameters<float>& gradients) const {
    linear_backward(ctx.op, ctx.description.order, dy, x, gradients);
  }
  void input(const ProductRows& dy, const LinearParameters<const float>& parameters,
             ChainStart start = ChainStart::zero) const {
    linear_input_gradient(ctx.op, ctx.description.order, dy, parameters, dx, start);
  }
};

// The gradient of what a part adds to the stream: that of the sum, or, where some of it is dropped,
// what is left of it, in `room`.
ProductRows undropped(const LayerContext& ctx, DropoutPlace::Of part, const ProductRows& dx,
                      Matrix room) {
  if (ctx.dropout.rate == 0) return dx;
  drop(ctx.op, ctx.dropout, {part, ctx.layer}, dx.wide, room);
  return room;
}

// dinner holds the gradient of the inner rows; from it those of gate and up.
void inner_backward(const LayerContext& ctx, const LayerParameters<const float>& weights,
                    const LayerParameters<float>& gradients, const LayerActivations& act,
                    const LayerScratch& scratch) {
  const LinearStep from_norm{ctx, act.feed_forward_normed, scratch.dnormed};
  const ProductRows& dopened = scratch.dopened;
  if (ctx.description.inner == FeedForward::plain) {
    must(kernels::activation_backward(ctx.op,
                                      {.kind = ctx.description.activation,
                                       .dy = scratch.dinner,
                                       .x = act.up,
                                       .dx = dopened.wide,
                                       .rounded = dopened.rounded,
                                       .sums = dopened.rounded ? gradients.up.bias : nullptr}));
    LinearParameters<float> not_summed = gradients.up;
    if (dopened.rounded) not_summed.bias = nullptr;
    from_norm.parameters(dopened, not_summed);
    return from_norm.input(dopened, weights.up);
  }
  must(kernels::silu_gate_backward(ctx.op, {.dy = scratch.dinner,
                                            .gate = act.gate,
                                            .up = act.up,
                                            .dgate = dopened.wide,
                                            .dup = scratch.dup.wide,
                                            .dgate_rounded = dopened.rounded,
                                            .dup_rounded = scratch.dup.rounded}));
  from_norm.parameters(dopened, gradients.gate);
  from_norm.parameters(scratch.dup, gradients.up);
  from_norm.input(dopened, weights.gate);
  from_norm.input(scratch.dup, weights.up, ChainStart::output);
}

void feed_forward_backward(const LayerContext& ctx, const LayerParameters<const float>& weights,
                           const LayerParameters<float>& gradients, const LayerActivations& act,
                           const LayerScratch& scratch, const ProductRows& dx) {
  const LinearStep from_inner{ctx, act.inner, scratch.dinner};
  const ProductRows added = undropped(ctx, DropoutPlace::Of::feed_forward, dx, scratch.dnormed);
  from_inner.parameters(added, gradients.down);
  from_inner.input(added, weights.down);
  inner_backward(ctx, weights, gradients, act, scratch);
  norm_backward(ctx.op, ctx.description,
                {.dy = scratch.dnormed,
                 .x = act.mid,
                 .parameters = weights.feed_forward_norm,
                 .kept = act.feed_forward_norm,
                 .dx = dx,
                 .gradients = gradients.feed_forward_norm,
                 .residual = dx.wide});
}

void projections_backward(const LayerContext& ctx, const LayerParameters<const float>& weights,
                          const LayerParameters<float>& gradients, const LayerActivations& act,
                          const LayerScratch& scratch, const ProductRows& dx) {
  using Direction = kernels::RotaryApply::Direction;
  if (turns(ctx)) {
    rotate(ctx, scratch.dquery, Direction::backward);
    rotate(ctx, scratch.dkey, Direction::backward);
  }
  const LinearStep from_norm{ctx, act.attention_normed, scratch.dnormed};
  from_norm.parameters(scratch.dquery, gradients.query);
  from_norm.parameters(scratch.dkey, gradients.key);
  from_norm.parameters(scratch.dvalue, gradients.value);
  from_norm.input(scratch.dquery, weights.query);
  from_norm.input(scratch.dkey, weights.key, ChainStart::output);
  from_norm.input(scratch.dvalue, weights.value, ChainStart::output);
  norm_backward(ctx.op, ctx.description,
                {.dy = scratch.dnormed,
                 .x = act.x,
                 .parameters = weights.attention_norm,
                 .kept = act.attention_norm,
                 .dx = dx,
                 .gradients = gradients.attention_norm,
                 .residual = dx.wide});
}

}  // namespace

void must(const Result<>& result) {
  if (result) return;
  if (result.error().code == ErrorCode::exhausted) {
    throw kernels::AllocationFailure(result.error());
  }
  switch (result.error().code) {
    case ErrorCode::unavailable:
    case ErrorCode::unsupported:
    case ErrorCode::internal: throw kernels::DeviceFailure(result.error());
    default: break;
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
                                           const float* arena, const std::uint16_t* rounded) {
  LayerParameters<const float> weights = parameters_in(layout, layer, arena);
  if (rounded == nullptr) return weights;
  const auto also = parameters_in(layout, layer, rounded);
  weights.query.rounded = also.query.weight;
  weights.key.rounded = also.key.weight;
  weights.value.rounded = also.value.weight;
  weights.output.rounded = also.output.weight;
  weights.gate.rounded = also.gate.weight;
  weights.up.rounded = also.up.weight;
  weights.down.rounded = also.down.weight;
  return weights;
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

namespace {

void norm_input(const LayerContext& ctx, const LayerParameters<const float>& weights,
                const LayerActivations& act) {
  norm_forward(ctx.op, ctx.description,
               {.x = act.x,
                .parameters = weights.attention_norm,
                .y = act.attention_normed,
                .kept = act.attention_norm});
}

void norm_mid(const LayerContext& ctx, const LayerParameters<const float>& weights,
              const LayerActivations& act) {
  norm_forward(ctx.op, ctx.description,
               {.x = act.mid,
                .parameters = weights.feed_forward_norm,
                .y = act.feed_forward_normed,
                .kept = act.feed_forward_norm});
}

// What a part adds to the residual stream, and their sum.
struct Added {
  DropoutPlace::Of part;
  ProductRows from;
  ConstMatrix stream;
  Matrix sum;  // may be the stream, where nothing is dropped
};

// A product of rows, without its weight.
kernels::Product of_rows(const ProductRows& rows, Matrix output) {
  return {.left = rows.wide, .right = {}, .output = output, .left_rounded = rows.rounded};
}

void add_to_stream(const LayerContext& ctx, const LinearParameters<const float>& parameters,
                   const Added& added, WeightImage LayerImages::*image) {
  kernels::Product product = of_rows(added.from, added.sum);
  if (ctx.dropout.rate == 0) {
    product.residual = added.stream;
    return linear(ctx, parameters, product, image);
  }
  linear(ctx, parameters, product, image);
  drop(ctx.op, ctx.dropout, {added.part, ctx.layer}, added.sum, added.sum);
  const auto count = static_cast<std::size_t>(added.sum.rows * added.sum.columns);
  must(kernels::add_into(ctx.op, std::span(added.sum.data, count),
                         std::span(added.stream.data, count)));
}

// gate and up -> inner.
void open_gate(const LayerContext& ctx, const LayerActivations& act) {
  const bool gated = ctx.description.inner == FeedForward::gated;
  must(gated ? kernels::silu_gate_forward(ctx.op, {.gate = act.gate,
                                                   .up = act.up,
                                                   .y = act.inner.wide,
                                                   .rounded = act.inner.rounded})
             : kernels::activation_forward(ctx.op, {.kind = ctx.description.activation,
                                                    .x = act.up,
                                                    .y = act.inner.wide,
                                                    .rounded = act.inner.rounded}));
}

}  // namespace

void project(const LayerContext& ctx, const LayerParameters<const float>& weights,
             const LayerActivations& act) {
  norm_input(ctx, weights, act);
  const ProductRows& normed = act.attention_normed;
  linear(ctx, weights.query, of_rows(normed, act.query.wide), &LayerImages::query);
  linear(ctx, weights.key, of_rows(normed, act.key.wide), &LayerImages::key);
  linear(ctx, weights.value, of_rows(normed, act.value.wide), &LayerImages::value);
  round(ctx, act.value);
  for (const ProductRows* const rows : {&act.query, &act.key}) {
    if (turns(ctx)) {
      rotate(ctx, *rows, kernels::RotaryApply::Direction::forward);
    } else {
      round(ctx, *rows);
    }
  }
}

void widen(const LayerContext& ctx, const LayerParameters<const float>& weights,
           const LayerActivations& act) {
  add_to_stream(ctx, weights.output, {DropoutPlace::Of::attention, act.attended, act.x, act.mid},
                &LayerImages::output);
  norm_mid(ctx, weights, act);
  const ProductRows& normed = act.feed_forward_normed;
  const bool gated = ctx.description.inner == FeedForward::gated;
  if (gated) linear(ctx, weights.gate, of_rows(normed, act.gate), &LayerImages::gate);
  kernels::Product up = of_rows(normed, act.up);
  const bool keeps_up = act.inner.wide.data != act.up.data;
  if (!keeps_up) {
    up.activation = ctx.description.activation;
    if (gated) up.gate = act.gate;
  }
  linear(ctx, weights.up, up, &LayerImages::up);
  if (keeps_up) open_gate(ctx, act);
}

void finish(const LayerContext& ctx, const LayerParameters<const float>& weights,
            const LayerActivations& act, Matrix out) {
  widen(ctx, weights, act);
  add_to_stream(ctx, weights.down, {DropoutPlace::Of::feed_forward, act.inner, act.mid, out},
                &LayerImages::down);
}

void remake_rows(const LayerContext& ctx, const LayerParameters<const float>& weights,
                 const LayerActivations& act) {
  norm_input(ctx, weights, act);
  norm_mid(ctx, weights, act);
  open_gate(ctx, act);
}

namespace {

// Rows that attention reads: rounded ones alone where there are any, as the fp32 rows that these
// were made of may lie where a gradient does.
ConstMatrix read_by_attention(const ProductRows& rows) {
  if (!rows.rounded) return rows.wide;
  return {nullptr, rows.wide.rows, rows.wide.columns};
}

// Where attention leaves a gradient. Who turns it rounds it then; for a bias it is summed in fp32.
ProductRows left_by_attention(const ProductRows& gradient, bool turned, const float* bias) {
  TUTTI_ASSERT(bias == nullptr || !turned || !gradient.rounded);  // can_be_rounded
  if (turned) return gradient.wide;
  if (bias != nullptr || !gradient.rounded) return gradient;
  return {Matrix(nullptr, gradient.wide.rows, gradient.wide.columns), gradient.rounded};
}

}  // namespace

void backward(const LayerContext& ctx, const LayerParameters<const float>& weights,
              const LayerParameters<float>& gradients, const LayerActivations& act,
              const LayerScratch& scratch, std::span<const std::int32_t> sample_offsets,
              const ProductRows& dx) {
  feed_forward_backward(ctx, weights, gradients, act, scratch, dx);
  const LinearStep from_attended{ctx, act.attended, scratch.dattended};
  const ProductRows added = undropped(ctx, DropoutPlace::Of::attention, dx, scratch.dnormed);
  from_attended.parameters(added, gradients.output);
  from_attended.input(added, weights.output);
  const ProductRows dq = left_by_attention(scratch.dquery, turns(ctx), gradients.query.bias);
  const ProductRows dk = left_by_attention(scratch.dkey, turns(ctx), gradients.key.bias);
  const ProductRows dv = left_by_attention(scratch.dvalue, false, gradients.value.bias);
  must(kernels::attention_backward(ctx.op, {.shape = ctx.attention,
                                            .q = read_by_attention(act.query),
                                            .k = read_by_attention(act.key),
                                            .v = read_by_attention(act.value),
                                            .out = act.attended.wide,
                                            .dout = scratch.dattended,
                                            .lse = act.lse,
                                            .sample_offsets = sample_offsets,
                                            .dq = dq.wide,
                                            .dk = dk.wide,
                                            .dv = dv.wide,
                                            .q_rounded = act.query.rounded,
                                            .k_rounded = act.key.rounded,
                                            .v_rounded = act.value.rounded,
                                            .dq_rounded = dq.rounded,
                                            .dk_rounded = dk.rounded,
                                            .dv_rounded = dv.rounded}));
  projections_backward(ctx, weights, gradients, act, scratch, dx);
}

}  // namespace tutti::models
