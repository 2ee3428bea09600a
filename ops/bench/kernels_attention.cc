// Attention at the shapes of the demo, GPT-2 124M, a 7B layer and Gemma's (some of their heads),
// beside PyTorch's scaled_dot_product_attention.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <string_view>
#include <vector>

#include "kernels/ops/attention.h"
#include "kernels/ops/key_value_pages.h"
#include "kernels/tensor/buffer.h"
#include "ops/bench/kernels_cases.h"
#include "ops/bench/kernels_operands.h"

namespace tutti::bench {

using kernels::AttentionShape;
using kernels::FloatBuffer;
using kernels::Index;

namespace {

// What else a score or a sample has; each is a case of its own, with no peer.
enum class BatchForm { plain, window, slopes, cap, packed };

struct Batch {
  const char* model;
  std::int32_t samples, tokens;
  Index heads, kv_heads, width;
  bool causal = true;
  BatchForm form = BatchForm::plain;
};

constexpr std::int32_t kWindow = 256;

constexpr Batch kBatches[] = {
    {"demo", 8, 256, 6, 6, 32},
    {"gpt2", 4, 256, 12, 12, 64},
    {"gpt2", 1, 1024, 12, 12, 64},
    {"7B", 1, 2048, 4, 1, 128},
    {"7B", 1, 4096, 2, 1, 128},
    {"gpt2", 1, 4096, 2, 2, 64},
    {"bert", 2, 512, 12, 12, 64, false},
    {"gemma", 1, 1024, 4, 2, 256},
    {"gpt2", 1, 1024, 12, 12, 64, true, BatchForm::window},
    {"gpt2", 1, 1024, 12, 12, 64, true, BatchForm::slopes},
    {"gpt2", 1, 1024, 12, 12, 64, true, BatchForm::cap},
    {"gpt2", 1, 1024, 12, 12, 64, true, BatchForm::packed},
};

// Ends of samples: of `tokens` each, or one row of tokens in documents of many lengths.
std::vector<std::int32_t> offsets_of(const Batch& c) {
  if (c.form == BatchForm::packed) return {0, 37, 348, 353, 643, 771, 835, 1024};
  std::vector<std::int32_t> offsets;
  for (std::int32_t s = 0; s <= c.samples; ++s) offsets.push_back(s * c.tokens);
  return offsets;
}

// Of tokens that see each other.
double pairs_of(const Batch& c, const std::vector<std::int32_t>& offsets) {
  double pairs = 0.0;
  for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
    const std::int32_t tokens = offsets[s + 1] - offsets[s];
    for (std::int32_t i = 1; i <= tokens; ++i) {
      pairs += !c.causal ? tokens : c.form == BatchForm::window ? std::min(i, kWindow) : i;
    }
  }
  return pairs;
}

// "gpt2 attention forward 1 12 ..", and behind its second word what is not plain.
std::string with_form(std::string name, BatchForm form) {
  constexpr const char* kForms[] = {"", " by windows of 256", " with slopes", " with a cap",
                                    " of packed samples"};
  constexpr std::string_view kWord = " attention";
  return name.insert(name.find(kWord) + kWord.size(), kForms[static_cast<int>(form)]);
}

void bench_batch(const Bench& bench, const Batch& c) {
  const std::string numbers_of = fmt::format("{} {} {} {} {} {}", c.samples, c.heads, c.kv_heads,
                                             c.tokens, c.width, c.causal ? "causal" : "full");
  const std::string forward =
      with_form(fmt::format("{} attention forward {}", c.model, numbers_of), c.form);
  const std::string backward =
      with_form(fmt::format("{} attention backward {}", c.model, numbers_of), c.form);
  if (!wanted(bench, forward) && !wanted(bench, backward)) return;
  const std::vector<float> slopes(static_cast<std::size_t>(c.heads), 0.125F);
  const AttentionShape shape{
      .heads = c.heads,
      .kv_heads = c.kv_heads,
      .head_width = c.width,
      .scale = 1.0F / std::sqrt(static_cast<float>(c.width)),
      .mask = c.causal ? kernels::AttentionMask::causal : kernels::AttentionMask::full,
      .window = c.form == BatchForm::window ? kWindow : 0,
      .soft_cap = c.form == BatchForm::cap ? 50.0F : 0.0F,
      .slopes = c.form == BatchForm::slopes ? slopes.data() : nullptr};
  const Index tokens = Index{c.samples} * c.tokens;
  const Index wide = c.heads * c.width;
  const Index narrow = c.kv_heads * c.width;
  const std::vector<std::int32_t> offsets = offsets_of(c);
  const FloatBuffer q = numbers(bench, tokens * wide, 1);
  const FloatBuffer k = numbers(bench, tokens * narrow, 2);
  const FloatBuffer v = numbers(bench, tokens * narrow, 3);
  const FloatBuffer dout = numbers(bench, tokens * wide, 4);
  FloatBuffer out(tokens * wide);
  FloatBuffer lse(tokens * c.heads);
  FloatBuffer dq(tokens * wide);
  FloatBuffer dk(tokens * narrow);
  FloatBuffer dv(tokens * narrow);
  const bool plain = c.form == BatchForm::plain;
  const double work = pairs_of(c, offsets) * static_cast<double>(wide);  // of one product, halved
  bench_beside(bench, {.name = forward, .flops = 4.0 * work},
               plain ? "attention_forward " + numbers_of : "", [&] {
                 TUTTI_ASSERT(attention_forward(bench.ctx, {.shape = shape,
                                                            .q = q.matrix(tokens, wide),
                                                            .k = k.matrix(tokens, narrow),
                                                            .v = v.matrix(tokens, narrow),
                                                            .sample_offsets = offsets,
                                                            .out = out.matrix(tokens, wide),
                                                            .lse = lse.data()}));
               });
  bench_beside(bench, {.name = backward, .flops = 10.0 * work},
               plain ? "attention_backward " + numbers_of : "", [&] {
                 TUTTI_ASSERT(attention_backward(bench.ctx, {.shape = shape,
                                                             .q = q.matrix(tokens, wide),
                                                             .k = k.matrix(tokens, narrow),
                                                             .v = v.matrix(tokens, narrow),
                                                             .out = out.matrix(tokens, wide),
                                                             .dout = dout.matrix(tokens, wide),
                                                             .lse = lse.data(),
                                                             .sample_offsets = offsets,
                                                             .dq = dq.matrix(tokens, wide),
                                                             .dk = dk.matrix(tokens, narrow),
                                                             .dv = dv.matrix(tokens, narrow)}));
               });
}

struct Decode {
  const char* model;
  Index heads, kv_heads, width;
  kernels::CacheType cache;
};

constexpr Decode kDecodes[] = {
    {"gpt2", 12, 12, 64, kernels::CacheType::f32},  {"7B", 32, 8, 128, kernels::CacheType::f32},
    {"7B", 32, 8, 128, kernels::CacheType::bf16},   {"7B", 32, 8, 128, kernels::CacheType::int8},
    {"gpt2", 12, 12, 64, kernels::CacheType::bf16},
};
constexpr Decode kDemoDecode = {"demo", 6, 6, 32, kernels::CacheType::f32};
constexpr Decode kWideDecode = {"gemma", 16, 8, 256, kernels::CacheType::f32};

// One new token behind `positions` others, of some sequences together and each time of others; the
// share is of the memory ceiling for one reading of keys and values.
void bench_decode(const Bench& bench, const Decode& d, Index positions, Index sequences) {
  const AttentionShape shape{.heads = d.heads,
                             .kv_heads = d.kv_heads,
                             .head_width = d.width,
                             .scale = 1.0F / std::sqrt(static_cast<float>(d.width)),
                             .cache = d.cache};
  const char* const types[] = {"f32", "bf16", "int8"};
  const std::string numbers_of =
      fmt::format("{} {} {} {}", d.heads, d.kv_heads, positions, d.width);
  const char* const type = types[static_cast<int>(d.cache)];
  const std::string name = sequences == 1
                               ? fmt::format("{} attention decode {} {}", d.model, type, numbers_of)
                               : fmt::format("{} attention decode of {} sequences {} {}", d.model,
                                             sequences, type, numbers_of);
  if (!wanted(bench, name)) return;
  const Index page_floats = kv_page_floats(shape);
  const Index count = kernels::kv_pages_for(positions);
  const Index wide = d.heads * d.width;
  const Index narrow = d.kv_heads * d.width;
  const auto pages_at = [&](float* memory) {
    std::vector<float*> pages;
    for (Index p = 0; p < count; ++p) pages.push_back(memory + p * page_floats);
    return pages;
  };
  const FloatBuffer written(count * page_floats);
  const std::vector<float*> first = pages_at(written.data());
  const FloatBuffer k = numbers(bench, positions * narrow, 1);
  const kernels::SequenceRows all{0, positions, 0, first};
  TUTTI_ASSERT(kv_write(bench.ctx, {shape, k.matrix(positions, narrow), k.matrix(positions, narrow),
                                    std::span(&all, 1)}));
  Copies copies(written.data(), written.span().size_bytes());
  std::vector<std::vector<float*>> pages;
  for (Index copy = 0; copy < copies.count(); ++copy) {
    pages.push_back(pages_at(reinterpret_cast<float*>(copies.next())));
  }
  Turns turns(copies.count());
  const FloatBuffer q = numbers(bench, sequences * wide, 2);
  const FloatBuffer out(sequences * wide);
  std::vector<kernels::SequenceRows> rows(static_cast<std::size_t>(sequences));
  const double element = d.cache == kernels::CacheType::f32    ? 4.0
                         : d.cache == kernels::CacheType::bf16 ? 2.0
                                                               : 1.0;
  const Case c{.name = name,
               .bytes = element * 2.0 * static_cast<double>(sequences * positions * narrow),
               .sets = std::max<Index>(1, copies.count() / sequences)};
  const bool has_peer = d.cache != kernels::CacheType::int8 && sequences == 1;
  const char* const peer =
      d.cache == kernels::CacheType::f32 ? "attention_decode " : "attention_decode_bf16 ";
  bench_beside(bench, c, has_peer ? peer + numbers_of : "", [&] {
    for (Index row = 0; row < sequences; ++row) {
      rows[static_cast<std::size_t>(row)] = {row, 1, positions - 1, pages[turns.next()]};
    }
    TUTTI_ASSERT(attention_cached(
        bench.ctx, {shape, q.matrix(sequences, wide), rows, out.matrix(sequences, wide)}));
  });
}

}  // namespace

void bench_attention(const Bench& bench) {
  for (const Batch& c : kBatches) bench_batch(bench, c);
  for (const Index positions : {256, 1024}) bench_decode(bench, kDemoDecode, positions, 1);
  bench_decode(bench, kWideDecode, 4096, 1);
  for (const Decode& d : kDecodes) {
    for (const Index positions : {1024, 4096, 16384}) bench_decode(bench, d, positions, 1);
    if (takes_its_time(bench)) bench_decode(bench, d, 1024, 8);
  }
}

}  // namespace tutti::bench
