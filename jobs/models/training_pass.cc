#include "jobs/models/training_pass.h"

#include <fmt/core.h>

#include <algorithm>
#include <atomic>
#include <bit>

#include "jobs/models/layer.h"
#include "jobs/models/parts/fp8_weights.h"
#include "jobs/models/parts/positions.h"
#include "jobs/models/token_check.h"
#include "kernels/ops/add.h"
#include "kernels/ops/cross_entropy.h"
#include "kernels/ops/elementwise/clear.h"
#include "kernels/ops/embedding.h"
#include "kernels/ops/rotary.h"
#include "kernels/tensor/device.h"

namespace tutti::models {

namespace {

// Where everything lies. Gradients of activations share one set.
struct TrainingPlan {
  std::vector<LayerBands> layers;
  Band last, last_normed, last_mean, last_inverse;
  Band dx, dx_rounded, dnormed, dinner, dopened, dup, dattended, dquery, dkey, dvalue;
  Band dquery_rounded, dkey_rounded, dvalue_rounded;
  Band cosine, sine, losses;
  Index floats = 0;

  TrainingPlan(const DecoderDescription& d, PassLimits limits, Recompute recompute, Kept kept) {
    MemoryPlan plan(limits.rows_max);
    const Index query = d.query_width();
    const Index kv = d.kv_width();
    const Index gate = d.inner == FeedForward::gated ? d.feed_forward : 0;
    const Index mean = d.norm == Norm::layer ? 1 : 0;
    const Index angles = d.positions == Positions::rotary ? d.head_dim / 2 : 0;
    const Numbers of_products = kept == Kept::wide ? Numbers::wide : Numbers::rounded;
    layers = plan_layers(plan, d, recompute, kept);
    for (Band* band : {&last, &dx, &dnormed}) *band = plan.band(d.width);
    last_normed = plan.band(d.width, of_products);
    if (kept != Kept::wide) dx_rounded = plan.band(d.width, of_products);
    dinner = plan.band(d.feed_forward);
    // Rounded numbers do not lie where those that they are made of do.
    dopened = kept == Kept::wide ? dinner : plan.band(d.feed_forward, of_products);
    dup = plan.band(gate, of_products);
    dattended = plan.band(query);
    if (kept == Kept::attention) {
      // Where fp32 rows of all layers lie, from their product to their rounding.
      const LayerBands& any = layers.front();
      dquery = any.query;
      dkey = any.key;
      dvalue = any.value;
      dquery_rounded = plan.band(query, Numbers::rounded);
      for (Band* band : {&dkey_rounded, &dvalue_rounded}) *band = plan.band(kv, Numbers::rounded);
    } else {
      dquery = plan.band(query);
      for (Band* band : {&dkey, &dvalue}) *band = plan.band(kv);
    }
    for (Band* band : {&cosine, &sine}) *band = plan.band(angles);
    last_mean = plan.band(mean);
    for (Band* band : {&last_inverse, &losses}) *band = plan.band(1);
    floats = plan.floats();
  }
};

std::uint64_t next_number() {
  static std::atomic<std::uint64_t> made{0};
  return ++made;
}

Result<> refuse(std::string message) {
  return Error{ErrorCode::invalid_argument, std::move(message)};
}

Result<> check_offsets(std::span<const std::int32_t> offsets, std::size_t rows) {
  if (offsets.size() < 2 || offsets.front() != 0 ||
      static_cast<std::size_t>(offsets.back()) != rows ||
      !std::is_sorted(offsets.begin(), offsets.end())) {
    return refuse(fmt::format("sample offsets do not ascend from 0 to {} rows", rows));
  }
  return {};
}

}  // namespace

struct TrainingPass::Impl {
  const Decoder& decoder;
  const std::uint64_t number = next_number();  // of this pass in the process
  const PassLimits limits;
  const Recompute recompute;
  const TrainingPlan plan;
  const std::vector<float> frequencies;
  const kernels::FloatBuffer memory;
  std::vector<float> host_losses;  // of a device's
  std::vector<std::int32_t> counted_positions;

  Impl(const Decoder& decoder_in, PassLimits limits_in, kernels::Device* device,
       Recompute recompute_in, Kept kept)
      : decoder(decoder_in),
        limits(limits_in),
        recompute(recompute_in),
        plan(decoder.description(), limits, recompute, kept),
        frequencies(rotary_frequencies(decoder.description())),
        memory(plan.floats, device),
        host_losses(device == nullptr ? 0 : limits.rows_max),
        counted_positions(limits.rows_max) {}

  const DecoderDescription& description() const { return decoder.description(); }

  Result<> check(const PassWeights& weights, const TokenBatch& batch) const;
  std::span<const std::int32_t> positions(const TokenBatch& batch);
  LayerContext layer_context(const kernels::OpContext& ctx, const TokenBatch& batch,
                             std::uint32_t layer) const;
  LayerActivations activations(std::uint32_t layer, Index rows) const;
  LayerScratch scratch(Index rows) const;
  // The gradient of the stream: norms go on from it in fp32, and products read it, too. They do not
  // where some of it is dropped.
  ProductRows stream_gradient(const TokenBatch& batch) const;
  template <class Number>
  kernels::BasicMatrix<const Number> matrix(Role role, const Number* arena) const;
  NormStatistics last_norm(Index rows) const;
  void embed(const kernels::OpContext& ctx, const float* weights, const TokenBatch& batch);
  void embed_backward(const kernels::OpContext& ctx, const TokenBatch& batch, float* gradients);

  LayerParameters<const float> layer_of(const PassWeights& weights, std::uint32_t layer) const {
    auto parameters = layer_weights(decoder.layout(), layer, weights.wide.data(), weights.rounded);
    if (weights.fp8 != nullptr) weights.fp8->give(layer, parameters);
    return parameters;
  }
  void run_layers(const kernels::OpContext& ctx, const PassWeights& weights,
                  const TokenBatch& batch);
  void remake(const LayerContext& ctx, const PassWeights& weights, const TokenBatch& batch);
  void run_loss(const kernels::OpContext& ctx, const PassWeights& weights, const TokenBatch& batch,
                float* gradients);
  Result<> run_backward(const kernels::OpContext& ctx, const PassWeights& weights,
                        const TokenBatch& batch, float* gradients, const RangeReady& ready);
  std::uint64_t memory_key(const PassWeights& weights, const float* gradients,
                           float loss_scale) const;
  Result<const float*> fetch_losses(const kernels::OpContext& ctx, std::size_t rows);
};

Result<> TrainingPass::Impl::check(const PassWeights& weights, const TokenBatch& batch) const {
  const std::size_t rows = batch.tokens.size();
  if (weights.wide.size() != decoder.layout().elements()) {
    return refuse(fmt::format("weights of {} elements for a model of {}", weights.wide.size(),
                              decoder.layout().elements()));
  }
  if (rows == 0 || rows > limits.rows_max) {
    return refuse(
        fmt::format("a batch of {} tokens; this pass takes 1 to {}", rows, limits.rows_max));
  }
  if (batch.offsets.size() > std::size_t{limits.samples_max} + 1) {
    return refuse(fmt::format("a batch of {} samples; this pass takes up to {}",
                              batch.offsets.size() - 1, limits.samples_max));
  }
  if (batch.targets.size() != rows ||
      (!batch.positions.empty() && batch.positions.size() != rows)) {
    return refuse(fmt::format("{} tokens with {} targets and {} positions", rows,
                              batch.targets.size(), batch.positions.size()));
  }
  if (auto checked = check_offsets(batch.offsets, rows); !checked) return checked;
  if (auto checked = check_dropout(batch.dropout); !checked) return checked;
  if (auto checked = check_tokens(batch.tokens, description().vocabulary); !checked) return checked;
  for (const std::int32_t target : batch.targets) {
    if (target < -1 || target >= static_cast<std::int64_t>(description().vocabulary)) {
      return refuse(fmt::format("target {} is outside the model's vocabulary of {}", target,
                                description().vocabulary));
    }
  }
  for (const std::int32_t position : batch.positions) {
    if (position < 0) return refuse(fmt::format("position {} is negative", position));
    if (auto known = check_position(description(), position); !known) return known;
  }
  for (std::size_t sample = 0; batch.positions.empty() && sample + 1 < batch.offsets.size();
       ++sample) {
    const std::int32_t rows_of = batch.offsets[sample + 1] - batch.offsets[sample];
    if (auto known = check_position(description(), rows_of - 1); !known) return known;
  }
  return {};
}

std::span<const std::int32_t> TrainingPass::Impl::positions(const TokenBatch& batch) {
  if (!batch.positions.empty()) return batch.positions;
  for (std::size_t sample = 0; sample + 1 < batch.offsets.size(); ++sample) {
    for (std::int32_t row = batch.offsets[sample]; row < batch.offsets[sample + 1]; ++row) {
      counted_positions[static_cast<std::size_t>(row)] = row - batch.offsets[sample];
    }
  }
  return std::span(counted_positions).first(batch.tokens.size());
}

LayerContext TrainingPass::Impl::layer_context(const kernels::OpContext& ctx,
                                               const TokenBatch& batch, std::uint32_t layer) const {
  const auto rows = static_cast<Index>(batch.tokens.size());
  return {.op = ctx,
          .description = description(),
          .attention = attention_shape(description()),
          .cosine = plan.cosine.view(memory, rows),
          .sine = plan.sine.view(memory, rows),
          .dropout = batch.dropout,
          .layer = layer};
}

LayerActivations TrainingPass::Impl::activations(std::uint32_t layer, Index rows) const {
  const LayerBands& bands = plan.layers[layer];
  return {.x = bands.x.view(memory, rows),
          .attention_normed = bands.attention_normed.product_rows(memory, rows),
          .query = both_ways(memory, rows, bands.query, bands.query_rounded),
          .key = both_ways(memory, rows, bands.key, bands.key_rounded),
          .value = both_ways(memory, rows, bands.value, bands.value_rounded),
          .attended = both_ways(memory, rows, bands.attended, bands.attended_rounded),
          .mid = bands.mid.view(memory, rows),
          .feed_forward_normed = bands.feed_forward_normed.product_rows(memory, rows),
          .gate = bands.gate.view(memory, rows),
          .up = bands.up.view(memory, rows),
          .inner = bands.inner.product_rows(memory, rows),
          .attention_norm = {bands.attention_mean.view(memory, rows).data,
                             bands.attention_inverse.view(memory, rows).data},
          .feed_forward_norm = {bands.feed_forward_mean.view(memory, rows).data,
                                bands.feed_forward_inverse.view(memory, rows).data},
          .lse = bands.lse.view(memory, rows).data};
}

LayerScratch TrainingPass::Impl::scratch(Index rows) const {
  return {.dnormed = plan.dnormed.view(memory, rows),
          .dinner = plan.dinner.view(memory, rows),
          .dopened = plan.dopened.product_rows(memory, rows),
          .dup = plan.dup.product_rows(memory, rows),
          .dattended = plan.dattended.view(memory, rows),
          .dquery = both_ways(memory, rows, plan.dquery, plan.dquery_rounded),
          .dkey = both_ways(memory, rows, plan.dkey, plan.dkey_rounded),
          .dvalue = both_ways(memory, rows, plan.dvalue, plan.dvalue_rounded)};
}

ProductRows TrainingPass::Impl::stream_gradient(const TokenBatch& batch) const {
  const auto rows = static_cast<Index>(batch.tokens.size());
  if (batch.dropout.rate != 0) return plan.dx.view(memory, rows);
  return both_ways(memory, rows, plan.dx, plan.dx_rounded);
}

template <class Number>
kernels::BasicMatrix<const Number> TrainingPass::Impl::matrix(Role role,
                                                              const Number* arena) const {
  const Parameter& parameter = decoder.layout().at(role);
  return {arena + parameter.offset, static_cast<Index>(parameter.shape[0]),
          static_cast<Index>(parameter.shape[1])};
}

NormStatistics TrainingPass::Impl::last_norm(Index rows) const {
  return {plan.last_mean.view(memory, rows).data, plan.last_inverse.view(memory, rows).data};
}

// Tokens, and positions where the model has learned them.
void TrainingPass::Impl::embed(const kernels::OpContext& ctx, const float* weights,
                               const TokenBatch& batch) {
  const auto rows = static_cast<Index>(batch.tokens.size());
  const Matrix x = plan.layers.front().x.view(memory, rows);
  must(kernels::embedding_forward(
      ctx, {.table = matrix(Role::embedding, weights), .tokens = batch.tokens, .output = x}));
  if (description().positions == Positions::learned) {
    add_positions(ctx, {.table = matrix(Role::position_embedding, weights),
                        .positions = positions(batch),
                        .room = plan.dnormed.view(memory, rows),
                        .x = x});
  } else {
    must(kernels::rotary_angles(ctx, {.positions = positions(batch),
                                      .frequencies = frequencies,
                                      .cosine = plan.cosine.view(memory, rows),
                                      .sine = plan.sine.view(memory, rows)}));
  }
  if (batch.dropout.rate != 0) drop(ctx, batch.dropout, {}, x, x);
}

void TrainingPass::Impl::embed_backward(const kernels::OpContext& ctx, const TokenBatch& batch,
                                        float* gradients) {
  const ParameterLayout& layout = decoder.layout();
  const Matrix dx = plan.dx.view(memory, static_cast<Index>(batch.tokens.size()));
  if (batch.dropout.rate != 0) drop(ctx, batch.dropout, {}, dx, dx);
  const auto add = [&](std::span<const std::int32_t> rows, std::uint64_t place, Role role) {
    const Parameter& table = layout.at(role);
    must(kernels::embedding_backward(
        ctx, {.dout = dx,
              .tokens = rows,
              .dtable = Matrix(gradients + place, static_cast<Index>(table.shape[0]),
                               static_cast<Index>(table.shape[1]))}));
  };
  // A tied matrix is used twice; this use has its own place behind the parameters.
  add(batch.tokens, description().tied ? layout.elements() : layout.at(Role::embedding).offset,
      Role::embedding);
  if (const Parameter* const table = layout.find(Role::position_embedding)) {
    add(positions(batch), table->offset, Role::position_embedding);
  }
}

namespace {

void attend(const LayerContext& ctx, const LayerActivations& act, const TokenBatch& batch) {
  must(kernels::attention_forward(ctx.op, {.shape = ctx.attention,
                                           .q = act.query.wide,
                                           .k = act.key.wide,
                                           .v = act.value.wide,
                                           .sample_offsets = batch.offsets,
                                           .out = act.attended.wide,
                                           .lse = act.lse,
                                           .q_rounded = act.query.rounded,
                                           .k_rounded = act.key.rounded,
                                           .v_rounded = act.value.rounded,
                                           .out_rounded = act.attended.rounded}));
}

}  // namespace

void TrainingPass::Impl::run_layers(const kernels::OpContext& ctx, const PassWeights& weights,
                                    const TokenBatch& batch) {
  const auto rows = static_cast<Index>(batch.tokens.size());
  embed(ctx, weights.wide.data(), batch);
  for (std::uint32_t layer = 0; layer < description().layers; ++layer) {
    const LayerContext layer_ctx = layer_context(ctx, batch, layer);
    const auto parameters = layer_of(weights, layer);
    const LayerActivations act = activations(layer, rows);
    project(layer_ctx, parameters, act);
    attend(layer_ctx, act, batch);
    const bool is_last = layer + 1 == description().layers;
    const Band& out = is_last ? plan.last : plan.layers[layer + 1].x;
    finish(layer_ctx, parameters, act, out.view(memory, rows));
  }
  norm_forward(ctx, description(),
               {.x = plan.last.view(memory, rows),
                .parameters = final_norm(decoder.layout(), weights.wide.data()),
                .y = plan.last_normed.product_rows(memory, rows),
                .kept = last_norm(rows)});
}

// What backward of the layer reads and was not kept. The last layer's is still there.
void TrainingPass::Impl::remake(const LayerContext& ctx, const PassWeights& weights,
                                const TokenBatch& batch) {
  if (recompute == Recompute::none || ctx.layer + 1 == description().layers) return;
  const auto parameters = layer_of(weights, ctx.layer);
  const LayerActivations act = activations(ctx.layer, static_cast<Index>(batch.tokens.size()));
  if (recompute == Recompute::selective) return remake_rows(ctx, parameters, act);
  project(ctx, parameters, act);
  attend(ctx, act, batch);
  widen(ctx, parameters, act);
}

// `gradients` null: forward only.
void TrainingPass::Impl::run_loss(const kernels::OpContext& ctx, const PassWeights& weights,
                                  const TokenBatch& batch, float* gradients) {
  const auto rows = static_cast<Index>(batch.tokens.size());
  const ConstMatrix head = matrix(Role::head, weights.wide.data());
  const ProductRows hidden = plan.last_normed.product_rows(memory, rows);
  kernels::LinearCrossEntropy args{.hidden = hidden.wide,
                                   .weight = head,
                                   .targets = batch.targets,
                                   .losses = plan.losses.view(memory, rows).data,
                                   .padded = static_cast<Index>(description().vocabulary_rows()),
                                   .hidden_rounded = hidden.rounded};
  if (weights.rounded != nullptr) args.weight_rounded = matrix(Role::head, weights.rounded);
  if (gradients != nullptr) {
    args.scale = batch.loss_scale;
    args.dhidden = plan.dnormed.view(memory, rows);
    args.dweight =
        Matrix(gradients + decoder.layout().at(Role::head).offset, head.rows, head.columns);
  }
  must(kernels::linear_cross_entropy(ctx, args));
}

// From the loss to the embeddings.
Result<> TrainingPass::Impl::run_backward(const kernels::OpContext& ctx, const PassWeights& weights,
                                          const TokenBatch& batch, float* gradients,
                                          const RangeReady& ready) {
  std::size_t range = 0;
  const auto tell = [&] { return ready ? ready(range++) : Result<>(); };
  run_loss(ctx, weights, batch, gradients);
  if (!description().tied) {
    if (auto told = tell(); !told) return told;
  }
  const auto rows = static_cast<Index>(batch.tokens.size());
  const ProductRows dx = stream_gradient(batch);
  norm_backward(ctx, description(),
                {.dy = plan.dnormed.view(memory, rows),
                 .x = plan.last.view(memory, rows),
                 .parameters = final_norm(decoder.layout(), weights.wide.data()),
                 .kept = last_norm(rows),
                 .dx = dx,
                 .gradients = final_norm(decoder.layout(), gradients)});
  if (auto told = tell(); !told) return told;
  for (std::uint32_t layer = description().layers; layer-- > 0;) {
    const LayerContext layer_ctx = layer_context(ctx, batch, layer);
    remake(layer_ctx, weights, batch);
    backward(layer_ctx, layer_of(weights, layer),
             layer_gradients(decoder.layout(), layer, gradients), activations(layer, rows),
             scratch(rows), batch.offsets, dx);
    if (auto told = tell(); !told) return told;
  }
  embed_backward(ctx, batch, gradients);
  return {};
}

// What a call's work depends on and no launch says: which memory it uses, and the scale.
std::uint64_t TrainingPass::Impl::memory_key(const PassWeights& weights, const float* gradients,
                                             float loss_scale) const {
  std::uint64_t key = 0;
  for (const std::uint64_t part :
       {number, reinterpret_cast<std::uint64_t>(weights.wide.data()),
        reinterpret_cast<std::uint64_t>(weights.rounded),
        reinterpret_cast<std::uint64_t>(weights.fp8 == nullptr ? nullptr : weights.fp8->data()),
        reinterpret_cast<std::uint64_t>(gradients),
        std::uint64_t{std::bit_cast<std::uint32_t>(loss_scale)}}) {
    key = (key ^ part) * 0x9E3779B97F4A7C15ULL;
    key ^= key >> 32;
  }
  return key;
}

// The losses of the batch's rows, in host memory.
Result<const float*> TrainingPass::Impl::fetch_losses(const kernels::OpContext& ctx,
                                                      std::size_t rows) {
  const float* const losses = plan.losses.view(memory, 1).data;
  if (ctx.device == nullptr) return losses;
  auto fetched = ctx.device->download(host_losses.data(), losses, rows * sizeof(float));
  if (!fetched) return std::move(fetched).error();
  return static_cast<const float*>(host_losses.data());
}

std::vector<kernels::IndexRange> backward_order(const ParameterLayout& layout) {
  const std::span<const Parameter> all = layout.parameters();
  std::uint32_t layers = 0;
  for (const Parameter& parameter : all) layers = std::max(layers, parameter.layer + 1);
  const auto place = [&](const Parameter& parameter) -> std::size_t {
    if (parameter.role == Role::head) return 0;
    switch (parameter.role) {
      case Role::final_norm:
      case Role::final_norm_bias: return 1;
      case Role::embedding:
      case Role::position_embedding: return std::size_t{layers} + 2;
      default: break;
    }
    return std::size_t{layers} + 1 - parameter.layer;
  };
  std::vector<kernels::IndexRange> order(std::size_t{layers} + 3);
  for (std::size_t i = 0; i < all.size(); ++i) {
    const std::uint64_t end = i + 1 < all.size() ? all[i + 1].offset : layout.elements();
    kernels::IndexRange& range = order[place(all[i])];
    // A layer's parameters have one prefix, and so lie together.
    TUTTI_ASSERT(range.empty() || range.end == all[i].offset);
    if (range.empty()) range.begin = all[i].offset;
    range.end = end;
  }
  if (order.front().empty()) order.erase(order.begin());  // a tied head
  return order;
}

TrainingPass::TrainingPass(const Decoder& decoder, PassLimits limits, kernels::Device* device,
                           Recompute recompute, Kept kept)
    : impl_(std::make_unique<Impl>(decoder, limits, device, recompute, kept)) {}
TrainingPass::TrainingPass(TrainingPass&&) noexcept = default;
TrainingPass::~TrainingPass() = default;

std::uint64_t TrainingPass::workspace_bytes(const DecoderDescription& description,
                                            PassLimits limits, Recompute recompute, Kept kept) {
  return static_cast<std::uint64_t>(TrainingPlan(description, limits, recompute, kept).floats) *
         sizeof(float);
}

Result<> TrainingPass::add_gradients(const kernels::OpContext& ctx, const PassWeights& weights,
                                     const TokenBatch& batch, std::span<float> gradients,
                                     const RangeReady& ready) {
  if (auto checked = impl_->check(weights, batch); !checked) return checked;
  if (gradients.size() != impl_->decoder.layout().gradient_elements()) {
    return refuse(fmt::format("{} gradients for {} parameters", gradients.size(),
                              impl_->decoder.layout().gradient_elements()));
  }
  const auto run = [&] {
    impl_->run_layers(ctx, weights, batch);
    return impl_->run_backward(ctx, weights, batch, gradients.data(), ready);
  };
  const bool repeats = ctx.device != nullptr && !ready && batch.dropout.rate == 0;
  if (!repeats) return run();
  return ctx.device->run_repeated(impl_->memory_key(weights, gradients.data(), batch.loss_scale),
                                  run);
}

Result<> TrainingPass::keep_losses(const kernels::OpContext& ctx, std::span<float> losses) {
  TUTTI_ASSERT(losses.size() <= impl_->limits.rows_max);
  const float* const own = impl_->plan.losses.view(impl_->memory, 1).data;
  if (ctx.device != nullptr) {
    return ctx.device->copy(losses.data(), own, losses.size_bytes());
  }
  std::copy_n(own, losses.size(), losses.begin());
  return {};
}

Result<> TrainingPass::forward_backward(const kernels::OpContext& ctx, const PassWeights& weights,
                                        const TokenBatch& batch, std::span<float> gradients,
                                        std::span<SampleLoss> losses, const RangeReady& ready) {
  if (losses.size() + 1 != batch.offsets.size()) {
    return refuse(fmt::format("{} losses for {} samples", losses.size(), batch.offsets.size() - 1));
  }
  if (auto added = add_gradients(ctx, weights, batch, gradients, ready); !added) return added;
  auto fetched = impl_->fetch_losses(ctx, batch.tokens.size());
  if (!fetched) return std::move(fetched).error();
  for (std::size_t sample = 0; sample < losses.size(); ++sample) {
    losses[sample] = {};
    for (auto row = static_cast<std::size_t>(batch.offsets[sample]);
         row < static_cast<std::size_t>(batch.offsets[sample + 1]); ++row) {
      losses[sample].add((*fetched)[row], batch.targets[row]);
    }
  }
  return {};
}

Result<> TrainingPass::token_losses(const kernels::OpContext& ctx, const PassWeights& weights,
                                    const TokenBatch& batch, std::span<float> losses) {
  if (auto checked = impl_->check(weights, batch); !checked) return checked;
  if (losses.size() != batch.tokens.size()) {
    return refuse(fmt::format("{} losses for {} tokens", losses.size(), batch.tokens.size()));
  }
  TokenBatch whole = batch;
  whole.dropout = {};
  impl_->run_layers(ctx, weights, whole);
  impl_->run_loss(ctx, weights, whole, nullptr);
  auto fetched = impl_->fetch_losses(ctx, losses.size());
  if (!fetched) return std::move(fetched).error();
  std::copy_n(*fetched, losses.size(), losses.begin());
  return {};
}

void TrainingPass::finish_shard(const kernels::OpContext& ctx, std::span<float> gradients) const {
  const ParameterLayout& layout = impl_->decoder.layout();
  if (!impl_->description().tied) return;
  const Parameter& table = layout.at(Role::embedding);
  const auto second_use = gradients.subspan(layout.elements(), table.elements);
  must(kernels::add_into(ctx, gradients.subspan(table.offset, table.elements), second_use));
  must(kernels::clear(ctx, second_use));
}

}  // namespace tutti::models
