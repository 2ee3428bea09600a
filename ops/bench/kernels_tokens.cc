// Token rows and weights as they are moved: embedding, positions, pages, hashes, packing, chosen
// tokens. Shares are of the memory ceiling for each byte touched once, where operands come from
// memory.
#include <fmt/core.h>

#include <string>
#include <vector>

#include "kernels/ops/choose_tokens.h"
#include "kernels/ops/embedding.h"
#include "kernels/ops/key_value_pages.h"
#include "kernels/ops/rotary.h"
#include "kernels/ops/sampling.h"
#include "kernels/ops/weight_hash.h"
#include "kernels/ops/weights/packed_bf16.h"
#include "kernels/ops/weights/packed_weight.h"
#include "kernels/ops/weights/product_int8.h"
#include "kernels/ops/weights/quantised_weight.h"
#include "ops/bench/kernels_cases.h"
#include "ops/bench/kernels_operands.h"

namespace tutti::bench {

using kernels::FloatBuffer;
using kernels::Index;

namespace {

constexpr Index kTokens = 8192;
constexpr Index kWidth = 3072;
constexpr Index kVocabulary = 50257;
constexpr double kElements = static_cast<double>(kTokens * kWidth);

// Tables and rows of several models, in turns.
void bench_embedding(const Bench& bench, Operands& operands) {
  const std::string shape = fmt::format("8192x3072, rows of 768 from {}", kVocabulary);
  const std::string forward = "embedding forward " + shape;
  const std::string backward = "embedding backward " + shape;
  if (!wanted(bench, forward) && !wanted(bench, backward)) return;
  constexpr Index kRows = kTokens * 4;
  std::vector<std::int32_t> tokens;
  for (Index i = 0; i < kRows; ++i) {
    tokens.push_back(static_cast<std::int32_t>(i * 7919 % kVocabulary));
  }
  Operands tables(kVocabulary * 768);
  const std::string torch = fmt::format(" {} {} 768", kRows, kVocabulary);
  const double bytes = 8.0 * kElements;
  bench_beside(
      bench,
      {.name = forward,
       .bytes = bytes,
       .written = 4.0 * kElements,
       .sets = sets_beyond_caches(bytes)},
      "embedding_forward" + torch, [&] {
        TUTTI_ASSERT(embedding_forward(bench.ctx, {.table = tables.in().matrix(kVocabulary, 768),
                                                   .tokens = tokens,
                                                   .output = operands.out().matrix(kRows, 768)}));
      });
  bench_beside(bench,
               {.name = backward,
                .bytes = 12.0 * kElements,
                .written = 4.0 * kElements,
                .sets = sets_beyond_caches(bytes)},
               "embedding_backward" + torch, [&] {
                 TUTTI_ASSERT(embedding_backward(bench.ctx,
                                                 {.dout = operands.in().matrix(kRows, 768),
                                                  .tokens = tokens,
                                                  .dtable = tables.in().matrix(kVocabulary, 768)}));
               });
}

// Bound by the elementary functions, whatever memory gives.
void bench_angles(const Bench& bench) {
  const FloatBuffer cosine(kTokens * 64);
  const FloatBuffer sine(kTokens * 64);
  std::vector<std::int32_t> positions;
  for (std::int32_t i = 0; i < kTokens; ++i) positions.push_back(i);
  const std::vector<float> frequencies = kernels::rotary_frequencies({.width = 128});
  bench_beside(bench, {.name = "rotary angles 8192x64", .bytes = 8.0 * kTokens * 64.0}, "", [&] {
    TUTTI_ASSERT(rotary_angles(bench.ctx, {.positions = positions,
                                           .frequencies = frequencies,
                                           .cosine = cosine.matrix(kTokens, 64),
                                           .sine = sine.matrix(kTokens, 64)}));
  });
}

// A prefill's keys and values of one layer, 24 heads of 128.
void bench_pages(const Bench& bench, Operands& operands) {
  struct Type {
    kernels::CacheType type;
    const char* name;
    double bytes;
  };
  for (const Type& t :
       {Type{kernels::CacheType::f32, "f32", 4.0}, Type{kernels::CacheType::bf16, "bf16", 2.0},
        Type{kernels::CacheType::int8, "int8", 1.0}}) {
    const Case c{.name = fmt::format("kv write {} 8192x3072", t.name),
                 .bytes = 2.0 * (4.0 + t.bytes) * kElements,
                 .written = 2.0 * t.bytes * kElements,
                 .sets = sets_beyond_caches(2.0 * (4.0 + t.bytes) * kElements)};
    if (!wanted(bench, c.name)) continue;
    const kernels::AttentionShape shape{
        .heads = 24, .kv_heads = 24, .head_width = 128, .scale = 1.0F, .cache = t.type};
    const Index page = kv_page_floats(shape);
    const Index count = kernels::kv_pages_for(kTokens);
    Operands memory(count * page);
    bench_beside(bench, c, "", [&] {
      float* const begin = memory.out().data();
      std::vector<float*> pages;
      for (Index p = 0; p < count; ++p) pages.push_back(begin + p * page);
      const kernels::SequenceRows rows{0, kTokens, 0, pages};
      TUTTI_ASSERT(
          kv_write(bench.ctx, {shape, operands.in().matrix(kTokens, kWidth),
                               operands.in().matrix(kTokens, kWidth), std::span(&rows, 1)}));
    });
  }
}

constexpr Index kOutputs = 11008;
constexpr Index kInputs = 4096;
constexpr double kLayerWeights = static_cast<double>(kOutputs * kInputs);

// A layer of a 7B model: hashed, and turned into images. Images are made anew each time, so the
// pages of their memory are made in that time, too.
void bench_weights(const Bench& bench) {
  Operands weights(kOutputs * kInputs);
  const auto row = [&](const std::string& name, double read, double written, const Run& run) {
    bench_beside(bench,
                 {.name = name,
                  .bytes = (read + written) * kLayerWeights,
                  .written = written * kLayerWeights,
                  .sets = sets_beyond_caches(read * kLayerWeights)},
                 "", run);
  };
  std::vector<kernels::Hash128> hashes(
      static_cast<std::size_t>(kernels::grid_blocks(kOutputs * kInputs)));
  row("hash blocks 11008x4096", 4, 0,
      [&] { TUTTI_ASSERT(hash_blocks(bench.ctx, weights.in().span(), hashes)); });
  row("pack weight 11008x4096", 4, 4,
      [&] { TUTTI_ASSERT(pack_weight(bench.ctx, weights.in().matrix(kOutputs, kInputs)).ok()); });
  std::vector<std::int8_t> codes;
  const FloatBuffer scales(kOutputs);
  row("to int8 rows 11008x4096", 4, 1, [&] {
    codes.resize(static_cast<std::size_t>(kOutputs * kInputs));
    TUTTI_ASSERT(to_int8_rows(bench.ctx, {.x = weights.in().matrix(kOutputs, kInputs),
                                          .codes = {codes.data(), kOutputs, kInputs},
                                          .scales = scales.matrix(kOutputs, 1)}));
  });
  struct Kind {
    kernels::Bf16Arithmetic arithmetic;
    const char* name;
  };
  for (const Kind& kind : {Kind{kernels::Bf16Arithmetic::widened, "widened"},
                           Kind{kernels::Bf16Arithmetic::native, "native"},
                           Kind{kernels::Bf16Arithmetic::tiles, "tiles"}}) {
    if (!kernels::has_bf16(kind.arithmetic)) continue;
    row(fmt::format("pack bf16 weight {} 11008x4096", kind.name), 2, 2, [&] {
      const auto* const halves = reinterpret_cast<const kernels::Bf16*>(weights.in().data());
      TUTTI_ASSERT(pack_bf16_weight(bench.ctx, {halves, kOutputs, kInputs}, kind.arithmetic).ok());
    });
  }
}

// An eighth of it in each format: quantised, which is arithmetic; read and laid out, from memory.
void bench_formats(const Bench& bench) {
  constexpr Index kRows = kOutputs / 8;
  constexpr double kValues = static_cast<double>(kRows * kInputs);
  FloatBuffer weight;
  Operands values(kRows * kInputs);
  for (const kernels::WeightFormat format : kernels::kWeightFormats) {
    const std::string name(to_string(format));
    const std::string quantise = fmt::format("quantise weight {} 1376x4096", name);
    const std::string dequantise = fmt::format("dequantise {} 1376x4096", name);
    const std::string pack = fmt::format("pack rows {} 1376x4096", name);
    if (!wanted(bench, quantise) && !wanted(bench, dequantise) && !wanted(bench, pack)) continue;
    if (weight.size() == 0) weight = numbers(bench, kRows * kInputs, 1);
    bench_beside(bench, {.name = quantise, .bytes = 4.0 * kValues}, "", [&] {
      TUTTI_ASSERT(quantise_weight(bench.ctx, format, weight.matrix(kRows, kInputs)).ok());
    });
    const std::size_t row = kernels::row_bytes(format, kInputs);
    std::vector<std::byte> rows(row * kRows);
    for (Index o = 0; o < kRows; ++o) {
      TUTTI_ASSERT(kernels::quantise_row(
          format, std::span<const float>(weight.matrix(kRows, kInputs).row(o), kInputs),
          std::span(rows).subspan(static_cast<std::size_t>(o) * row, row)));
    }
    const double stored = static_cast<double>(rows.size());
    Copies copies(rows.data(), rows.size());
    bench_beside(bench,
                 {.name = dequantise,
                  .bytes = stored + 4.0 * kValues,
                  .written = 4.0 * kValues,
                  .sets = copies.count()},
                 "", [&] {
                   const std::byte* const from = copies.next();
                   float* const to = values.out().data();
                   for (Index o = 0; o < kRows; ++o) {
                     TUTTI_ASSERT(kernels::dequantise_row(
                         format, std::span(from + static_cast<std::size_t>(o) * row, row),
                         std::span<float>(to + o * kInputs, kInputs)));
                   }
                 });
    bench_beside(
        bench, {.name = pack, .bytes = 2.0 * stored, .written = stored, .sets = copies.count()}, "",
        [&] {
          TUTTI_ASSERT(
              pack_rows(bench.ctx, format, std::span(copies.next(), rows.size()), kRows).ok());
        });
  }
}

// A decoding step of eight requests: greedy with log-probabilities, and drawn.
void bench_choice(const Bench& bench) {
  constexpr Index kRows = 8;
  FloatBuffer logits = numbers(bench, kRows * kVocabulary, 1);
  for (float& logit : logits.span()) logit *= 8.0F;
  std::vector<kernels::TokenDraw> draws;
  for (std::uint64_t row = 0; row < kRows; ++row) {
    const bool greedy = row % 2 == 0;
    draws.push_back({.settings = {.temperature = greedy ? 0.0 : 0.8, .top_k = greedy ? 0 : 50},
                     .position = row,
                     .logprob = greedy});
  }
  std::vector<kernels::ChosenToken> chosen(kRows);
  bench_beside(bench,
               {.name = fmt::format("choose tokens, {} rows of {}", kRows, kVocabulary),
                .bytes = 4.0 * kRows * static_cast<double>(kVocabulary)},
               "", [&] {
                 TUTTI_ASSERT(choose_tokens(
                     bench.ctx, {logits.matrix(kRows, kVocabulary), draws, chosen.data()}));
               });
}

void bench_sampling(const Bench& bench) {
  FloatBuffer logits = numbers(bench, kVocabulary, 1);
  for (float& logit : logits.span()) logit *= 8.0F;
  kernels::Sampler sampler;
  std::uint64_t position = 0;
  struct Kind {
    const char* name;
    kernels::SamplingSettings settings;
  };
  for (const Kind& kind :
       {Kind{"greedy", {.temperature = 0.0}}, Kind{"temperature", {.temperature = 0.8}},
        Kind{"top-k 50", {.top_k = 50}}, Kind{"top-p 0.9", {.top_p = 0.9}},
        Kind{"min-p 0.05", {.min_p = 0.05}}, Kind{"typical 0.9", {.typical_p = 0.9}}}) {
    const Case c{.name = fmt::format("sampling {} of {}", kind.name, kVocabulary)};
    bench_beside(bench, c, "", [&] {
      static_cast<void>(sampler.sample(logits.span(), kind.settings, ++position));
    });
  }
}

// What a request of two thousand tokens holds, before each of its draws.
void bench_penalties(const Bench& bench) {
  FloatBuffer logits = numbers(bench, kVocabulary, 1);
  std::vector<std::int32_t> seen;
  for (Index i = 0; i < 2048; ++i) {
    seen.push_back(static_cast<std::int32_t>(i * i * 7919 % kVocabulary));
  }
  const kernels::TokenBias biases[] = {{3, 1.0F}, {5, -1.0F}};
  kernels::Sampler sampler;
  bench_beside(
      bench, {.name = fmt::format("penalties of 2048 tokens of {}", kVocabulary)}, "", [&] {
        sampler.penalise(
            logits.span(),
            {.repetition = 1.1F, .frequency = 0.5F, .presence = 0.25F, .biases = biases}, seen);
      });
}

}  // namespace

void bench_tokens(const Bench& bench) {
  Operands operands(kTokens * kWidth);
  bench_embedding(bench, operands);
  bench_angles(bench);
  bench_pages(bench, operands);
  bench_weights(bench);
  bench_formats(bench);
  bench_sampling(bench);
  bench_penalties(bench);
  bench_choice(bench);
}

}  // namespace tutti::bench
