#include "jobs/models/inference_pass.h"

#include <fmt/core.h>

#include <algorithm>
#include <atomic>

#include "jobs/models/layer.h"
#include "jobs/models/memory_plan.h"
#include "jobs/models/parts/positions.h"
#include "jobs/models/token_check.h"
#include "kernels/ops/embedding.h"
#include "kernels/ops/key_value_pages.h"
#include "kernels/ops/product.h"
#include "kernels/ops/rotary.h"
#include "kernels/tensor/device.h"

namespace tutti::models {

namespace {

// One set of activations serves all layers: the residual stream goes from x to mid and back.
struct InferencePlan {
  Band x, mid, normed, query, key, value, attended, gate, up, cosine, sine;
  Index floats = 0;

  InferencePlan(const DecoderDescription& d, PassLimits limits) {
    MemoryPlan plan(limits.rows_max);
    for (Band* band : {&x, &mid, &normed}) *band = plan.band(d.width);
    for (Band* band : {&query, &attended}) *band = plan.band(d.query_width());
    for (Band* band : {&key, &value}) *band = plan.band(d.kv_width());
    gate = plan.band(d.inner == FeedForward::gated ? d.feed_forward : 0);
    up = plan.band(d.feed_forward);
    const Index angles = d.positions == Positions::rotary ? d.head_dim / 2 : 0;
    for (Band* band : {&cosine, &sine}) *band = plan.band(angles);
    floats = plan.floats();
  }
};

Result<> refuse(std::string message) {
  return Error{ErrorCode::invalid_argument, std::move(message)};
}

std::size_t pages_for(std::uint32_t positions) {
  return static_cast<std::size_t>(kernels::kv_pages_for(positions));
}

std::uint64_t next_number() {
  static std::atomic<std::uint64_t> last{0};
  return ++last;
}

// What a run reads: an arena or images.
struct WeightsInUse {
  const float* arena = nullptr;
  const ServingWeights* images = nullptr;
};

std::size_t wanted_rows(const SequenceChunk& chunk) {
  switch (chunk.wanted) {
    case LogitRows::none: return 0;
    case LogitRows::last: return 1;
    case LogitRows::all: return chunk.tokens.size();
  }
  return 0;
}

}  // namespace

KvCache::KvCache(const DecoderDescription& description, std::uint32_t capacity,
                 kernels::Device* device)
    : memory_(static_cast<Index>(bytes(description, capacity) / sizeof(float)), device),
      pages_per_layer_(pages_for(capacity)),
      capacity_(capacity) {
  const auto page = kernels::kv_page_floats(attention_shape(description));
  pages_.resize(pages_per_layer_ * description.layers);
  for (std::size_t index = 0; index < pages_.size(); ++index) {
    pages_[index] = memory_.data() + static_cast<Index>(index) * page;
  }
}

void KvCache::truncate(std::uint32_t length) {
  TUTTI_ASSERT(length <= length_);
  length_ = length;
}

void KvCache::pretend(std::uint32_t length) {
  TUTTI_ASSERT(length <= capacity_);
  length_ = length;
}

std::uint64_t KvCache::bytes(const DecoderDescription& description, std::uint32_t capacity) {
  const auto page = kernels::kv_page_floats(attention_shape(description));
  return pages_for(capacity) * description.layers * static_cast<std::uint64_t>(page) *
         sizeof(float);
}

std::span<float* const> KvCache::pages(std::uint32_t layer) const {
  return std::span(pages_).subspan(layer * pages_per_layer_, pages_per_layer_);
}

struct InferencePass::Impl {
  const std::uint64_t number = next_number();  // of this pass in the process
  const Decoder& decoder;
  const PassLimits limits;
  const kernels::AttentionCached::Most repeated;  // room of steps that are alike
  const InferencePlan plan;
  const std::vector<float> frequencies;
  const kernels::FloatBuffer memory;
  // Of the wanted rows that stay here, and the device's answers: from the first on, a row of each
  // sequence that a batch may have, so that captured steps keep their memory when batches grow.
  kernels::FloatBuffer logits;
  kernels::AlignedBytes device_chosen;
  // One batch, as the ops want it; room for the largest from the start.
  std::vector<std::int32_t> tokens;
  std::vector<std::int32_t> positions;
  std::vector<kernels::SequenceRows> sequences;

  Impl(const Decoder& decoder_in, PassLimits limits_in, kernels::Device* device, CacheLimits caches)
      : decoder(decoder_in),
        limits(limits_in),
        repeated{static_cast<Index>(caches.tokens_max), static_cast<Index>(caches.pages_max)},
        plan(decoder.description(), limits),
        frequencies(rotary_frequencies(decoder.description())),
        memory(plan.floats, device) {
    tokens.reserve(limits.rows_max);
    positions.reserve(limits.rows_max);
    sequences.reserve(limits.samples_max);
  }

  const DecoderDescription& description() const { return decoder.description(); }

  Result<> check(std::span<const SequenceChunk> chunks, std::size_t rows_given) const;
  void gather(std::span<const SequenceChunk> chunks);
  void point_to_layer(std::span<const SequenceChunk> chunks, std::uint32_t layer);
  static void advance(std::span<const SequenceChunk> chunks);
  LayerActivations activations(Index rows) const;
  Result<> run(const kernels::OpContext& ctx, const WeightsInUse& weights,
               std::span<const SequenceChunk> chunks, std::span<float> to);
  Result<> choose(const kernels::OpContext& ctx, const WeightsInUse& weights,
                  std::span<const SequenceChunk> chunks, std::span<const kernels::TokenDraw> draws,
                  std::span<kernels::ChosenToken> chosen);
  Matrix room_for_logits(const kernels::OpContext& ctx, Index rows);
  // Which memory a step uses: another number once some of it is another's.
  std::uint64_t memory_key(const ServingWeights& images) const;
  ConstMatrix table(Role role, const float* arena) const;
  void embed(const kernels::OpContext& ctx, const WeightsInUse& weights) const;
  void run_layers(const kernels::OpContext& ctx, const WeightsInUse& weights,
                  std::span<const SequenceChunk> chunks, kernels::AttentionCached::Most room = {});
  Index keep_wanted(const kernels::OpContext& ctx, std::span<const SequenceChunk> chunks) const;
  void run_head(const kernels::OpContext& ctx, const WeightsInUse& weights, Matrix to) const;
};

Result<> InferencePass::Impl::check(std::span<const SequenceChunk> chunks,
                                    std::size_t rows_given) const {
  std::size_t rows = 0;
  std::size_t wanted = 0;
  for (std::size_t index = 0; index < chunks.size(); ++index) {
    const SequenceChunk& chunk = chunks[index];
    if (chunk.cache == nullptr || chunk.tokens.empty()) {
      return refuse(fmt::format("chunk {} has no cache or no tokens", index));
    }
    for (std::size_t other = 0; other < index; ++other) {
      if (chunks[other].cache == chunk.cache) {
        return refuse(fmt::format("chunks {} and {} share one cache", other, index));
      }
    }
    if (chunk.tokens.size() > chunk.cache->capacity() - chunk.cache->length()) {
      return Error{
          ErrorCode::exhausted,
          fmt::format("chunk {} of {} tokens does not fit behind {} in a cache of {}", index,
                      chunk.tokens.size(), chunk.cache->length(), chunk.cache->capacity())};
    }
    if (auto checked = check_tokens(chunk.tokens, description().vocabulary); !checked) {
      return checked;
    }
    const std::uint64_t end = std::uint64_t{chunk.cache->length()} + chunk.tokens.size();
    const auto last = static_cast<std::int64_t>(end) - 1;
    if (auto known = check_position(description(), last); !known) return known;
    rows += chunk.tokens.size();
    wanted += wanted_rows(chunk);
  }
  if (rows == 0 || rows > limits.rows_max || chunks.size() > limits.samples_max) {
    return refuse(fmt::format("{} tokens of {} sequences; this pass takes 1 to {} of up to {}",
                              rows, chunks.size(), limits.rows_max, limits.samples_max));
  }
  if (rows_given != wanted) {
    return refuse(
        fmt::format("room for {} rows of logits where {} are wanted", rows_given, wanted));
  }
  return {};
}

void InferencePass::Impl::gather(std::span<const SequenceChunk> chunks) {
  tokens.clear();
  positions.clear();
  sequences.clear();
  for (const SequenceChunk& chunk : chunks) {
    const std::uint32_t length = chunk.cache->length();
    sequences.push_back({.first_row = static_cast<Index>(tokens.size()),
                         .rows = static_cast<Index>(chunk.tokens.size()),
                         .first_position = length,
                         .pages = {}});
    for (std::size_t at = 0; at < chunk.tokens.size(); ++at) {
      tokens.push_back(chunk.tokens[at]);
      positions.push_back(static_cast<std::int32_t>(length + at));
    }
  }
}

void InferencePass::Impl::point_to_layer(std::span<const SequenceChunk> chunks,
                                         std::uint32_t layer) {
  for (std::size_t index = 0; index < chunks.size(); ++index) {
    sequences[index].pages = chunks[index].cache->pages(layer);
  }
}

LayerActivations InferencePass::Impl::activations(Index rows) const {
  LayerActivations act;
  act.x = plan.x.view(memory, rows);
  act.attention_normed = plan.normed.view(memory, rows);
  act.query = plan.query.view(memory, rows);
  act.key = plan.key.view(memory, rows);
  act.value = plan.value.view(memory, rows);
  act.attended = plan.attended.view(memory, rows);
  act.mid = plan.mid.view(memory, rows);
  act.feed_forward_normed = act.attention_normed;
  act.gate = plan.gate.view(memory, rows);
  act.up = plan.up.view(memory, rows);
  act.inner = act.up;
  return act;
}

// A table in the arena.
ConstMatrix InferencePass::Impl::table(Role role, const float* arena) const {
  const Parameter& parameter = decoder.layout().at(role);
  return {arena + parameter.offset, static_cast<Index>(parameter.shape[0]),
          static_cast<Index>(parameter.shape[1])};
}

// Tokens, and positions where the model has learned them.
void InferencePass::Impl::embed(const kernels::OpContext& ctx, const WeightsInUse& weights) const {
  const auto rows = static_cast<Index>(tokens.size());
  const Matrix x = plan.x.view(memory, rows);
  if (weights.images != nullptr) {
    weights.images->look_up(ctx, tokens, x);
  } else {
    must(kernels::embedding_forward(
        ctx, {.table = table(Role::embedding, weights.arena), .tokens = tokens, .output = x}));
  }
  if (description().positions == Positions::learned) {
    return add_positions(
        ctx, {.table = weights.images != nullptr ? weights.images->position_table()
                                                 : table(Role::position_embedding, weights.arena),
              .positions = positions,
              .room = plan.mid.view(memory, rows),
              .x = x});
  }
  must(kernels::rotary_angles(ctx, {.positions = positions,
                                    .frequencies = frequencies,
                                    .cosine = plan.cosine.view(memory, rows),
                                    .sine = plan.sine.view(memory, rows)}));
}

void InferencePass::Impl::run_layers(const kernels::OpContext& ctx, const WeightsInUse& weights,
                                     std::span<const SequenceChunk> chunks,
                                     kernels::AttentionCached::Most room) {
  const auto rows = static_cast<Index>(tokens.size());
  LayerContext layer_ctx{.op = ctx,
                         .description = description(),
                         .attention = attention_shape(description()),
                         .cosine = plan.cosine.view(memory, rows),
                         .sine = plan.sine.view(memory, rows)};
  embed(ctx, weights);
  const LayerActivations act = activations(rows);
  for (std::uint32_t layer = 0; layer < description().layers; ++layer) {
    const auto parameters = weights.images != nullptr
                                ? weights.images->parameters(layer)
                                : layer_weights(decoder.layout(), layer, weights.arena);
    layer_ctx.images = weights.images != nullptr ? &weights.images->images(layer) : nullptr;
    project(layer_ctx, parameters, act);
    point_to_layer(chunks, layer);
    must(kernels::kv_write(ctx, {.shape = layer_ctx.attention,
                                 .k = act.key.wide,
                                 .v = act.value.wide,
                                 .sequences = sequences}));
    must(kernels::attention_cached(ctx, {.shape = layer_ctx.attention,
                                         .q = act.query.wide,
                                         .sequences = sequences,
                                         .out = act.attended.wide,
                                         .most = room}));
    finish(layer_ctx, parameters, act, act.x);
  }
}

// Moves the rows whose logits are wanted to the front of x; how many they are.
Index InferencePass::Impl::keep_wanted(const kernels::OpContext& ctx,
                                       std::span<const SequenceChunk> chunks) const {
  const Matrix x = plan.x.view(memory, static_cast<Index>(tokens.size()));
  Index kept = 0;
  for (std::size_t index = 0; index < chunks.size(); ++index) {
    const auto count = static_cast<Index>(wanted_rows(chunks[index]));
    const Index first = sequences[index].first_row + sequences[index].rows - count;
    for (Index row = 0; row < count; ++row, ++kept) {
      if (kept == first + row) continue;
      if (ctx.device != nullptr) {
        must(ctx.device->copy(x.row(kept), x.row(first + row),
                              static_cast<std::size_t>(x.columns) * sizeof(float)));
      } else {
        std::copy_n(x.row(first + row), x.columns, x.row(kept));
      }
    }
  }
  return kept;
}

void InferencePass::Impl::run_head(const kernels::OpContext& ctx, const WeightsInUse& weights,
                                   Matrix to) const {
  const Matrix normed = plan.normed.view(memory, to.rows);
  norm_forward(ctx, description(),
               {.x = plan.x.view(memory, to.rows),
                .parameters = weights.images != nullptr
                                  ? weights.images->final_norm()
                                  : models::final_norm(decoder.layout(), weights.arena),
                .y = normed});
  kernels::Product product{
      .left = normed, .right = ConstMatrix(nullptr, to.columns, description().width), .output = to};
  if (weights.images != nullptr) {
    multiply(ctx, product, weights.images->head());
  } else {
    product.right = table(Role::head, weights.arena);
    must(kernels::product_nt(ctx, product));
  }
}

Matrix InferencePass::Impl::room_for_logits(const kernels::OpContext& ctx, Index rows) {
  const Index vocabulary = description().vocabulary;
  if (logits.size() < rows * vocabulary) {
    const Index most = std::max<Index>(rows, limits.samples_max);
    logits = kernels::FloatBuffer(most * vocabulary, ctx.device);
  }
  return {logits.data(), rows, vocabulary};
}

std::uint64_t InferencePass::Impl::memory_key(const ServingWeights& images) const {
  std::uint64_t key = 0;
  for (const std::uint64_t part :
       {number, images.number(), reinterpret_cast<std::uint64_t>(logits.data()),
        reinterpret_cast<std::uint64_t>(device_chosen.data())}) {
    key = (key ^ part) * 0x9E3779B97F4A7C15ULL;
    key ^= key >> 32;
  }
  return key;
}

void InferencePass::Impl::advance(std::span<const SequenceChunk> chunks) {
  for (const SequenceChunk& chunk : chunks) {
    chunk.cache->length_ += static_cast<std::uint32_t>(chunk.tokens.size());
  }
}

Result<> InferencePass::Impl::run(const kernels::OpContext& ctx, const WeightsInUse& weights,
                                  std::span<const SequenceChunk> chunks, std::span<float> to) {
  const auto vocabulary = static_cast<std::size_t>(description().vocabulary);
  if (to.size() % vocabulary != 0) return refuse("room for a part of a row of logits");
  if (auto checked = check(chunks, to.size() / vocabulary); !checked) return checked;
  gather(chunks);
  run_layers(ctx, weights, chunks);
  advance(chunks);
  const Index rows = keep_wanted(ctx, chunks);
  if (rows == 0) return {};
  const Matrix here(to.data(), rows, description().vocabulary);
  const Matrix output = ctx.device != nullptr ? room_for_logits(ctx, rows) : here;
  run_head(ctx, weights, output);
  if (ctx.device == nullptr) return {};
  return ctx.device->download(to.data(), output.data, to.size_bytes());
}

Result<> InferencePass::Impl::choose(const kernels::OpContext& ctx, const WeightsInUse& weights,
                                     std::span<const SequenceChunk> chunks,
                                     std::span<const kernels::TokenDraw> draws,
                                     std::span<kernels::ChosenToken> chosen) {
  if (draws.size() != chosen.size()) return refuse("a draw and a place for each wanted row");
  if (auto checked = check(chunks, draws.size()); !checked) return checked;
  const Matrix output = room_for_logits(ctx, static_cast<Index>(draws.size()));
  auto* answers = chosen.data();
  if (ctx.device != nullptr) {
    if (device_chosen.size() < chosen.size_bytes()) {
      const std::size_t most = std::max<std::size_t>(chosen.size(), limits.samples_max);
      device_chosen = kernels::AlignedBytes(most * sizeof(kernels::ChosenToken), ctx.device);
    }
    answers = reinterpret_cast<kernels::ChosenToken*>(device_chosen.data());
  }
  gather(chunks);
  // Steps that only decode are alike; prompts come in all sizes.
  const bool repeats =
      ctx.device != nullptr && chunks.size() == tokens.size() && draws.size() == tokens.size();
  const auto step = [&]() -> Result<> {
    run_layers(ctx, weights, chunks, repeats ? repeated : kernels::AttentionCached::Most());
    if (keep_wanted(ctx, chunks) == 0) return {};
    run_head(ctx, weights, output);
    return kernels::choose_tokens(ctx, {.logits = output, .draws = draws, .chosen = answers});
  };
  const Result<> done =
      repeats ? ctx.device->run_repeated(memory_key(*weights.images), step) : step();
  if (!done) return done;
  advance(chunks);
  if (ctx.device == nullptr || chosen.empty()) return {};
  return ctx.device->download(chosen.data(), answers, chosen.size_bytes());
}

InferencePass::InferencePass(const Decoder& decoder, PassLimits limits, kernels::Device* device,
                             CacheLimits caches)
    : impl_(std::make_unique<Impl>(decoder, limits, device, caches)) {}
std::uint64_t InferencePass::workspace_bytes(const DecoderDescription& description,
                                             PassLimits limits) {
  return static_cast<std::uint64_t>(InferencePlan(description, limits).floats) * sizeof(float);
}
InferencePass::InferencePass(InferencePass&&) noexcept = default;
InferencePass::~InferencePass() = default;

Result<> InferencePass::run(const kernels::OpContext& ctx, std::span<const float> weights,
                            std::span<const SequenceChunk> chunks, std::span<float> logits) {
  const std::uint64_t elements = impl_->decoder.layout().elements();
  if (weights.size() != elements) {
    return refuse(
        fmt::format("weights of {} elements for a model of {}", weights.size(), elements));
  }
  return impl_->run(ctx, {.arena = weights.data()}, chunks, logits);
}

Result<> InferencePass::run(const kernels::OpContext& ctx, const ServingWeights& weights,
                            std::span<const SequenceChunk> chunks, std::span<float> logits) {
  return impl_->run(ctx, {.images = &weights}, chunks, logits);
}

Result<> InferencePass::choose(const kernels::OpContext& ctx, const ServingWeights& weights,
                               std::span<const SequenceChunk> chunks,
                               std::span<const kernels::TokenDraw> draws,
                               std::span<kernels::ChosenToken> chosen) {
  return impl_->choose(ctx, {.images = &weights}, chunks, draws, chosen);
}

}  // namespace tutti::models
