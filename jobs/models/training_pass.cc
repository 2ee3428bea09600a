#include "jobs/models/training_pass.h"

#include <fmt/core.h>

#include <algorithm>

#include "jobs/models/layer.h"
#include "jobs/models/memory_plan.h"
#include "jobs/models/token_check.h"
#include "kernels/ops/add.h"
#include "kernels/ops/cross_entropy.h"
#include "kernels/ops/elementwise/clear.h"
#include "kernels/ops/embedding.h"
#include "kernels/ops/rms_norm.h"
#include "kernels/ops/rotary.h"
#include "kernels/tensor/device.h"

namespace tutti::models {

namespace {

struct LayerBands {
  Band x, attention_normed, query, key, value, attended, mid, feed_forward_normed, gate, up, inner;
  Band attention_inverse, feed_forward_inverse, lse;
};

// Where everything lies. Activations of all layers are kept for backward; gradients of activations
// share one set.
struct TrainingPlan {
  std::vector<LayerBands> layers;
  Band last, last_normed, last_inverse;
  Band dx, dnormed, dinner, dup, dattended, dquery, dkey, dvalue;
  Band cosine, sine, losses;
  Index floats = 0;

  TrainingPlan(const DecoderDescription& d, PassLimits limits) {
    MemoryPlan plan(limits.rows_max);
    const Index query = d.query_width();
    const Index kv = d.kv_width();
    for (std::uint32_t layer = 0; layer < d.layers; ++layer) {
      LayerBands bands;
      for (Band* band :
           {&bands.x, &bands.attention_normed, &bands.mid, &bands.feed_forward_normed}) {
        *band = plan.band(d.width);
      }
      for (Band* band : {&bands.query, &bands.attended}) *band = plan.band(query);
      for (Band* band : {&bands.key, &bands.value}) *band = plan.band(kv);
      for (Band* band : {&bands.gate, &bands.up, &bands.inner}) *band = plan.band(d.feed_forward);
      for (Band* band : {&bands.attention_inverse, &bands.feed_forward_inverse}) {
        *band = plan.band(1);
      }
      bands.lse = plan.band(d.heads);
      layers.push_back(bands);
    }
    for (Band* band : {&last, &last_normed, &dx, &dnormed}) *band = plan.band(d.width);
    for (Band* band : {&dinner, &dup}) *band = plan.band(d.feed_forward);
    for (Band* band : {&dattended, &dquery}) *band = plan.band(query);
    for (Band* band : {&dkey, &dvalue}) *band = plan.band(kv);
    for (Band* band : {&cosine, &sine}) *band = plan.band(d.head_dim / 2);
    for (Band* band : {&last_inverse, &losses}) *band = plan.band(1);
    floats = plan.floats();
  }
};

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
  const PassLimits limits;
  const TrainingPlan plan;
  const std::vector<float> frequencies;
  const kernels::FloatBuffer memory;
  std::vector<float> host_losses;  // of a device's
  std::vector<std::int32_t> counted_positions;

  Impl(const Decoder& decoder_in, PassLimits limits_in, kernels::Device* device)
      : decoder(decoder_in),
        limits(limits_in),
        plan(decoder.description(), limits),
        frequencies(rotary_frequencies(decoder.description())),
        memory(plan.floats, device),
        host_losses(device == nullptr ? 0 : limits.rows_max),
        counted_positions(limits.rows_max) {}

  const DecoderDescription& description() const { return decoder.description(); }

  Result<> check(std::span<const float> weights, const TokenBatch& batch) const;
  std::span<const std::int32_t> positions(const TokenBatch& batch);
  LayerContext layer_context(const kernels::OpContext& ctx, Index rows) const;
  LayerActivations activations(std::uint32_t layer, Index rows) const;
  LayerScratch scratch(Index rows) const;
  ConstMatrix matrix(Role role, const float* arena) const;

  void run_layers(const kernels::OpContext& ctx, const float* weights, const TokenBatch& batch);
  void run_loss(const kernels::OpContext& ctx, const float* weights, const TokenBatch& batch,
                float* gradients);
  Result<> run_backward(const kernels::OpContext& ctx, const float* weights,
                        const TokenBatch& batch, float* gradients, const RangeReady& ready);
  Result<const float*> fetch_losses(const kernels::OpContext& ctx, std::size_t rows);
};

Result<> TrainingPass::Impl::check(std::span<const float> weights, const TokenBatch& batch) const {
  const std::size_t rows = batch.tokens.size();
  if (weights.size() != decoder.layout().elements()) {
    return refuse(fmt::format("weights of {} elements for a model of {}", weights.size(),
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
  if (auto checked = check_tokens(batch.tokens, description().vocabulary); !checked) return checked;
  for (const std::int32_t target : batch.targets) {
    if (target < -1 || target >= static_cast<std::int64_t>(description().vocabulary)) {
      return refuse(fmt::format("target {} is outside the model's vocabulary of {}", target,
                                description().vocabulary));
    }
  }
  for (const std::int32_t position : batch.positions) {
    if (position < 0) return refuse(fmt::format("position {} is negative", position));
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

LayerContext TrainingPass::Impl::layer_context(const kernels::OpContext& ctx, Index rows) const {
  return {.op = ctx,
          .description = description(),
          .attention = attention_shape(description()),
          .cosine = plan.cosine.view(memory, rows),
          .sine = plan.sine.view(memory, rows)};
}

LayerActivations TrainingPass::Impl::activations(std::uint32_t layer, Index rows) const {
  const LayerBands& bands = plan.layers[layer];
  return {.x = bands.x.view(memory, rows),
          .attention_normed = bands.attention_normed.view(memory, rows),
          .query = bands.query.view(memory, rows),
          .key = bands.key.view(memory, rows),
          .value = bands.value.view(memory, rows),
          .attended = bands.attended.view(memory, rows),
          .mid = bands.mid.view(memory, rows),
          .feed_forward_normed = bands.feed_forward_normed.view(memory, rows),
          .gate = bands.gate.view(memory, rows),
          .up = bands.up.view(memory, rows),
          .inner = bands.inner.view(memory, rows),
          .attention_inverse = bands.attention_inverse.view(memory, rows).data,
          .feed_forward_inverse = bands.feed_forward_inverse.view(memory, rows).data,
          .lse = bands.lse.view(memory, rows).data};
}

LayerScratch TrainingPass::Impl::scratch(Index rows) const {
  return {.dnormed = plan.dnormed.view(memory, rows),
          .dinner = plan.dinner.view(memory, rows),
          .dup = plan.dup.view(memory, rows),
          .dattended = plan.dattended.view(memory, rows),
          .dquery = plan.dquery.view(memory, rows),
          .dkey = plan.dkey.view(memory, rows),
          .dvalue = plan.dvalue.view(memory, rows)};
}

ConstMatrix TrainingPass::Impl::matrix(Role role, const float* arena) const {
  return {arena + decoder.layout().at(role).offset, static_cast<Index>(description().vocabulary),
          static_cast<Index>(description().width)};
}

void TrainingPass::Impl::run_layers(const kernels::OpContext& ctx, const float* weights,
                                    const TokenBatch& batch) {
  const auto rows = static_cast<Index>(batch.tokens.size());
  must(kernels::rotary_angles(ctx, {.positions = positions(batch),
                                    .frequencies = frequencies,
                                    .cosine = plan.cosine.view(memory, rows),
                                    .sine = plan.sine.view(memory, rows)}));
  must(kernels::embedding_forward(ctx, {.table = matrix(Role::embedding, weights),
                                        .tokens = batch.tokens,
                                        .output = plan.layers.front().x.view(memory, rows)}));
  const LayerContext layer_ctx = layer_context(ctx, rows);
  for (std::uint32_t layer = 0; layer < description().layers; ++layer) {
    const auto parameters = layer_weights(decoder.layout(), layer, weights);
    const LayerActivations act = activations(layer, rows);
    project(layer_ctx, parameters, act);
    must(kernels::attention_forward(ctx, {.shape = layer_ctx.attention,
                                          .q = act.query,
                                          .k = act.key,
                                          .v = act.value,
                                          .sample_offsets = batch.offsets,
                                          .out = act.attended,
                                          .lse = act.lse}));
    const bool is_last = layer + 1 == description().layers;
    const Band& out = is_last ? plan.last : plan.layers[layer + 1].x;
    finish(layer_ctx, parameters, act, out.view(memory, rows));
  }
  must(kernels::rms_norm_forward(ctx,
                                 {.x = plan.last.view(memory, rows),
                                  .weight = weights + decoder.layout().at(Role::final_norm).offset,
                                  .y = plan.last_normed.view(memory, rows),
                                  .epsilon = static_cast<float>(description().norm_epsilon),
                                  .inverse = plan.last_inverse.view(memory, rows).data}));
}

// `gradients` null: forward only.
void TrainingPass::Impl::run_loss(const kernels::OpContext& ctx, const float* weights,
                                  const TokenBatch& batch, float* gradients) {
  const auto rows = static_cast<Index>(batch.tokens.size());
  const ConstMatrix head = matrix(Role::head, weights);
  kernels::LinearCrossEntropy args{.hidden = plan.last_normed.view(memory, rows),
                                   .weight = head,
                                   .targets = batch.targets,
                                   .losses = plan.losses.view(memory, rows).data};
  if (gradients != nullptr) {
    args.dhidden = plan.dnormed.view(memory, rows);
    args.dweight =
        Matrix(gradients + decoder.layout().at(Role::head).offset, head.rows, head.columns);
  }
  must(kernels::linear_cross_entropy(ctx, args));
}

// From the loss to the embeddings.
Result<> TrainingPass::Impl::run_backward(const kernels::OpContext& ctx, const float* weights,
                                          const TokenBatch& batch, float* gradients,
                                          const RangeReady& ready) {
  std::size_t range = 0;
  const auto tell = [&] { return ready ? ready(range++) : Result<>(); };
  run_loss(ctx, weights, batch, gradients);
  if (!description().tied) {
    if (auto told = tell(); !told) return told;
  }
  const auto rows = static_cast<Index>(batch.tokens.size());
  const Matrix dx = plan.dx.view(memory, rows);
  const std::uint64_t norm = decoder.layout().at(Role::final_norm).offset;
  must(kernels::rms_norm_backward(ctx, {.dy = plan.dnormed.view(memory, rows),
                                        .x = plan.last.view(memory, rows),
                                        .weight = weights + norm,
                                        .inverse = plan.last_inverse.view(memory, rows).data,
                                        .dx = dx,
                                        .dweight = gradients + norm}));
  if (auto told = tell(); !told) return told;
  const LayerContext layer_ctx = layer_context(ctx, rows);
  for (std::uint32_t layer = description().layers; layer-- > 0;) {
    backward(layer_ctx, layer_weights(decoder.layout(), layer, weights),
             layer_gradients(decoder.layout(), layer, gradients), activations(layer, rows),
             scratch(rows), batch.offsets, dx);
    if (auto told = tell(); !told) return told;
  }
  // A tied matrix is used twice; this use has its own place behind the parameters.
  float* table = description().tied ? gradients + decoder.layout().elements()
                                    : gradients + decoder.layout().at(Role::embedding).offset;
  must(kernels::embedding_backward(
      ctx, {.dout = dx,
            .tokens = batch.tokens,
            .dtable = Matrix(table, description().vocabulary, description().width)}));
  return {};
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
    if (parameter.role == Role::final_norm) return 1;
    if (parameter.role == Role::embedding) return std::size_t{layers} + 2;
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

TrainingPass::TrainingPass(const Decoder& decoder, PassLimits limits, kernels::Device* device)
    : impl_(std::make_unique<Impl>(decoder, limits, device)) {}
TrainingPass::TrainingPass(TrainingPass&&) noexcept = default;
TrainingPass::~TrainingPass() = default;

std::uint64_t TrainingPass::workspace_bytes(const DecoderDescription& description,
                                            PassLimits limits) {
  return static_cast<std::uint64_t>(TrainingPlan(description, limits).floats) * sizeof(float);
}

Result<> TrainingPass::forward_backward(const kernels::OpContext& ctx,
                                        std::span<const float> weights, const TokenBatch& batch,
                                        std::span<float> gradients, std::span<SampleLoss> losses,
                                        const RangeReady& ready) {
  if (auto checked = impl_->check(weights, batch); !checked) return checked;
  if (gradients.size() != impl_->decoder.layout().gradient_elements() ||
      losses.size() + 1 != batch.offsets.size()) {
    return refuse(fmt::format(
        "{} gradients and {} losses for {} parameters and {} samples", gradients.size(),
        losses.size(), impl_->decoder.layout().gradient_elements(), batch.offsets.size() - 1));
  }
  impl_->run_layers(ctx, weights.data(), batch);
  auto ran = impl_->run_backward(ctx, weights.data(), batch, gradients.data(), ready);
  if (!ran) return ran;

  auto fetched = impl_->fetch_losses(ctx, batch.tokens.size());
  if (!fetched) return std::move(fetched).error();
  const float* const token_loss = *fetched;
  for (std::size_t sample = 0; sample < losses.size(); ++sample) {
    losses[sample] = {};
    for (auto row = static_cast<std::size_t>(batch.offsets[sample]);
         row < static_cast<std::size_t>(batch.offsets[sample + 1]); ++row) {
      losses[sample].sum += static_cast<double>(token_loss[row]);
      losses[sample].targets += batch.targets[row] < 0 ? 0 : 1;
    }
  }
  return {};
}

Result<> TrainingPass::token_losses(const kernels::OpContext& ctx, std::span<const float> weights,
                                    const TokenBatch& batch, std::span<float> losses) {
  if (auto checked = impl_->check(weights, batch); !checked) return checked;
  if (losses.size() != batch.tokens.size()) {
    return refuse(fmt::format("{} losses for {} tokens", losses.size(), batch.tokens.size()));
  }
  impl_->run_layers(ctx, weights.data(), batch);
  impl_->run_loss(ctx, weights.data(), batch, nullptr);
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
