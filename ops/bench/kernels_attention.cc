// Attention at the shapes of the demo, GPT-2 124M and a 7B layer (some of its heads), beside
// PyTorch's scaled_dot_product_attention.
#include <fmt/core.h>

#include <cmath>
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

struct Batch {
  const char* model;
  std::int32_t samples, tokens;
  Index heads, kv_heads, width;
  bool causal = true;
};

constexpr Batch kBatches[] = {
    {"demo", 8, 256, 6, 6, 32},          {"gpt2", 4, 256, 12, 12, 64},
    {"gpt2", 1, 1024, 12, 12, 64},       {"7B", 1, 2048, 4, 1, 128},
    {"7B", 1, 4096, 2, 1, 128},          {"gpt2", 1, 4096, 2, 2, 64},
    {"bert", 2, 512, 12, 12, 64, false},
};

void bench_batch(const Bench& bench, const Batch& c) {
  const std::string numbers_of = fmt::format("{} {} {} {} {} {}", c.samples, c.heads, c.kv_heads,
                                             c.tokens, c.width, c.causal ? "causal" : "full");
  const std::string forward = fmt::format("{} attention forward {}", c.model, numbers_of);
  const std::string backward = fmt::format("{} attention backward {}", c.model, numbers_of);
  if (!wanted(bench, forward) && !wanted(bench, backward)) return;
  const AttentionShape shape{
      c.heads, c.kv_heads, c.width, 1.0F / std::sqrt(static_cast<float>(c.width)),
      c.causal ? kernels::AttentionMask::causal : kernels::AttentionMask::full};
  const Index tokens = Index{c.samples} * c.tokens;
  const Index wide = c.heads * c.width;
  const Index narrow = c.kv_heads * c.width;
  std::vector<std::int32_t> offsets;
  for (std::int32_t s = 0; s <= c.samples; ++s) offsets.push_back(s * c.tokens);
  const FloatBuffer q = numbers(bench, tokens * wide, 1);
  const FloatBuffer k = numbers(bench, tokens * narrow, 2);
  const FloatBuffer v = numbers(bench, tokens * narrow, 3);
  const FloatBuffer dout = numbers(bench, tokens * wide, 4);
  FloatBuffer out(tokens * wide);
  FloatBuffer lse(tokens * c.heads);
  FloatBuffer dq(tokens * wide);
  FloatBuffer dk(tokens * narrow);
  FloatBuffer dv(tokens * narrow);
  const double pairs = c.causal ? 0.5 * c.tokens * (c.tokens + 1.0) : 1.0 * c.tokens * c.tokens;
  const double work = c.samples * pairs * static_cast<double>(wide);  // of one product, halved
  bench_beside(bench, {.name = forward, .flops = 4.0 * work}, "attention_forward " + numbers_of,
               [&] {
                 TUTTI_ASSERT(attention_forward(bench.ctx, {.shape = shape,
                                                            .q = q.matrix(tokens, wide),
                                                            .k = k.matrix(tokens, narrow),
                                                            .v = v.matrix(tokens, narrow),
                                                            .sample_offsets = offsets,
                                                            .out = out.matrix(tokens, wide),
                                                            .lse = lse.data()}));
               });
  bench_beside(bench, {.name = backward, .flops = 10.0 * work}, "attention_backward " + numbers_of,
               [&] {
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

// One new token behind `positions` others, each time of another sequence; the share is of the
// memory ceiling for one reading of keys and values.
void bench_decode(const Bench& bench, const Decode& d, Index positions) {
  const AttentionShape shape{.heads = d.heads,
                             .kv_heads = d.kv_heads,
                             .head_width = d.width,
                             .scale = 1.0F / std::sqrt(static_cast<float>(d.width)),
                             .cache = d.cache};
  const char* const types[] = {"f32", "bf16", "int8"};
  const std::string numbers_of =
      fmt::format("{} {} {} {}", d.heads, d.kv_heads, positions, d.width);
  const std::string name = fmt::format("{} attention decode {} {}", d.model,
                                       types[static_cast<int>(d.cache)], numbers_of);
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
  const FloatBuffer q = numbers(bench, wide, 2);
  const FloatBuffer out(wide);
  const double element = d.cache == kernels::CacheType::f32    ? 4.0
                         : d.cache == kernels::CacheType::bf16 ? 2.0
                                                               : 1.0;
  bench_beside(
      bench,
      {.name = name,
       .bytes = element * 2.0 * static_cast<double>(positions * narrow),
       .sets = copies.count()},
      d.cache == kernels::CacheType::f32 ? "attention_decode " + numbers_of : "", [&] {
        const kernels::SequenceRows rows{0, 1, positions - 1, pages[turns.next()]};
        TUTTI_ASSERT(attention_cached(
            bench.ctx, {shape, q.matrix(1, wide), std::span(&rows, 1), out.matrix(1, wide)}));
      });
}

}  // namespace

void bench_attention(const Bench& bench) {
  for (const Batch& c : kBatches) bench_batch(bench, c);
  for (const Decode& d : kDecodes) {
    for (const Index positions : {1024, 4096, 16384}) bench_decode(bench, d, positions);
  }
}

}  // namespace tutti::bench
