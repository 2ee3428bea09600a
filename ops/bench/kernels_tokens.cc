// Token rows and weights as they are moved: embedding, positions, pages, hashes, packing, chosen
// tokens. Shares are of the memory ceiling for each byte touched once.
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

namespace tutti::bench {

using kernels::FloatBuffer;
using kernels::Index;

namespace {

constexpr Index kTokens = 8192;
constexpr Index kWidth = 3072;
constexpr Index kVocabulary = 50257;
constexpr double kElements = static_cast<double>(kTokens * kWidth);

void bench_embedding(const Bench& bench) {
  const FloatBuffer table = numbers(bench, kVocabulary * 768, 1);
  const FloatBuffer rows(kTokens * 4 * 768);
  std::vector<std::int32_t> tokens;
  for (Index i = 0; i < kTokens * 4; ++i) {
    tokens.push_back(static_cast<std::int32_t>(i * 7919 % kVocabulary));
  }
  const double moved = static_cast<double>(rows.span().size());
  const std::string shape = fmt::format("8192x3072, rows of 768 from {}", kVocabulary);
  bench_beside(
      bench,
      {.name = "embedding forward " + shape,
       .peer_case = fmt::format("embedding_forward {} {} 768", kTokens * 4, kVocabulary),
       .bytes = 8.0 * moved},
      [&] {
        TUTTI_ASSERT(embedding_forward(bench.ctx, {.table = table.matrix(kVocabulary, 768),
                                                   .tokens = tokens,
                                                   .output = rows.matrix(kTokens * 4, 768)}));
      });
  bench_beside(bench, {.name = "embedding backward " + shape, .bytes = 12.0 * moved}, [&] {
    TUTTI_ASSERT(embedding_backward(bench.ctx, {.dout = rows.matrix(kTokens * 4, 768),
                                                .tokens = tokens,
                                                .dtable = table.matrix(kVocabulary, 768)}));
  });
}

void bench_positions(const Bench& bench) {
  const FloatBuffer x = numbers(bench, kTokens * kWidth, 1);
  const FloatBuffer cosine = numbers(bench, kTokens * 64, 2);
  const FloatBuffer sine = numbers(bench, kTokens * 64, 3);
  std::vector<std::int32_t> positions;
  for (std::int32_t i = 0; i < kTokens; ++i) positions.push_back(i);
  const std::vector<float> frequencies = kernels::rotary_frequencies({.width = 128});
  bench_beside(bench, {.name = "rotary 8192x3072, heads of 128", .bytes = 8.0 * kElements}, [&] {
    TUTTI_ASSERT(rotary_apply(bench.ctx, {.x = x.matrix(kTokens, kWidth),
                                          .head_width = 128,
                                          .cosine = cosine.matrix(kTokens, 64),
                                          .sine = sine.matrix(kTokens, 64)}));
  });
  bench_beside(bench, {.name = "rotary angles 8192x64", .bytes = 8.0 * kTokens * 64.0}, [&] {
    TUTTI_ASSERT(rotary_angles(bench.ctx, {.positions = positions,
                                           .frequencies = frequencies,
                                           .cosine = cosine.matrix(kTokens, 64),
                                           .sine = sine.matrix(kTokens, 64)}));
  });
}

// A prefill's keys and values of one layer, 24 heads of 128.
void bench_pages(const Bench& bench) {
  const FloatBuffer k = numbers(bench, kTokens * kWidth, 1);
  struct Type {
    kernels::CacheType type;
    const char* name;
    double bytes;
  };
  for (const Type& t :
       {Type{kernels::CacheType::f32, "f32", 4.0}, Type{kernels::CacheType::bf16, "bf16", 2.0},
        Type{kernels::CacheType::int8, "int8", 1.0}}) {
    const kernels::AttentionShape shape{
        .heads = 24, .kv_heads = 24, .head_width = 128, .scale = 1.0F, .cache = t.type};
    const Index page = kv_page_floats(shape);
    const Index count = kernels::kv_pages_for(kTokens);
    const FloatBuffer memory(count * page);
    std::vector<float*> pages;
    for (Index p = 0; p < count; ++p) pages.push_back(memory.data() + p * page);
    const kernels::SequenceRows rows{0, kTokens, 0, pages};
    bench_beside(
        bench,
        {.name = fmt::format("kv write {} 8192x3072", t.name),
         .bytes = 2.0 * (4.0 + t.bytes) * kElements},
        [&] {
          TUTTI_ASSERT(kv_write(bench.ctx, {shape, k.matrix(kTokens, kWidth),
                                            k.matrix(kTokens, kWidth), std::span(&rows, 1)}));
        });
  }
}

void bench_packed_halves(const Bench& bench, kernels::ConstMatrix weight) {
  std::vector<kernels::Bf16> halves(static_cast<std::size_t>(weight.rows * weight.columns));
  TUTTI_ASSERT(to_bf16(bench.ctx, {weight.data, halves.size()}, halves));
  using Arithmetic = kernels::Bf16Arithmetic;
  for (const Arithmetic arithmetic : {Arithmetic::widened, Arithmetic::native}) {
    const bool native = arithmetic == Arithmetic::native;
    if (!kernels::has_bf16(arithmetic)) continue;
    bench_beside(
        bench,
        {.name = fmt::format("pack bf16 weight {} {}x{}", native ? "native" : "widened",
                             weight.rows, weight.columns),
         .bytes = 4.0 * static_cast<double>(halves.size())},
        [&] {
          TUTTI_ASSERT(
              pack_bf16_weight(bench.ctx, {halves.data(), weight.rows, weight.columns}, arithmetic)
                  .ok());
        });
  }
}

// A layer of a 7B model.
void bench_weights(const Bench& bench) {
  constexpr Index kOutputs = 11008;
  constexpr Index kInputs = 4096;
  constexpr double kSize = static_cast<double>(kOutputs * kInputs);
  const FloatBuffer weight = numbers(bench, kOutputs * kInputs, 1);
  std::vector<kernels::Hash128> hashes(
      static_cast<std::size_t>(kernels::grid_blocks(kOutputs * kInputs)));
  bench_beside(bench, {.name = "hash blocks 11008x4096", .bytes = 4.0 * kSize},
               [&] { TUTTI_ASSERT(hash_blocks(bench.ctx, weight.span(), hashes)); });
  bench_beside(bench, {.name = "pack weight 11008x4096", .bytes = 8.0 * kSize}, [&] {
    TUTTI_ASSERT(pack_weight(bench.ctx, weight.matrix(kOutputs, kInputs)).ok());
  });
  bench_packed_halves(bench, weight.matrix(kOutputs, kInputs));
  const FloatBuffer scales(kOutputs);
  std::vector<std::int8_t> codes(static_cast<std::size_t>(kOutputs * kInputs));
  bench_beside(bench, {.name = "to int8 rows 11008x4096", .bytes = 5.0 * kSize}, [&] {
    TUTTI_ASSERT(to_int8_rows(bench.ctx, {.x = weight.matrix(kOutputs, kInputs),
                                          .codes = {codes.data(), kOutputs, kInputs},
                                          .scales = scales.data()}));
  });
  for (const kernels::WeightFormat format : kernels::kWeightFormats) {
    const std::string name(to_string(format));
    bench_beside(
        bench, {.name = fmt::format("quantise weight {} 1376x4096", name), .bytes = kSize / 2.0},
        [&] {
          TUTTI_ASSERT(
              quantise_weight(bench.ctx, format, weight.matrix(kOutputs / 8, kInputs)).ok());
        });
    const std::size_t row = kernels::row_bytes(format, kInputs);
    std::vector<std::byte> rows(row * kOutputs / 8);
    for (Index o = 0; o < kOutputs / 8; ++o) {
      TUTTI_ASSERT(kernels::quantise_row(
          format, std::span<const float>(weight.matrix(kOutputs, kInputs).row(o), kInputs),
          std::span(rows).subspan(static_cast<std::size_t>(o) * row, row)));
    }
    const double stored = static_cast<double>(rows.size());
    const FloatBuffer values(kOutputs / 8 * kInputs);
    bench_beside(
        bench,
        {.name = fmt::format("dequantise {} 1376x4096", name), .bytes = stored + kSize / 2.0}, [&] {
          for (Index o = 0; o < kOutputs / 8; ++o) {
            TUTTI_ASSERT(kernels::dequantise_row(
                format, std::span(rows).subspan(static_cast<std::size_t>(o) * row, row),
                std::span<float>(values.data() + o * kInputs, kInputs)));
          }
        });
    const std::string packing = fmt::format("pack rows {} 1376x4096", name);
    bench_beside(bench, {.name = packing, .bytes = 2.0 * stored},
                 [&] { TUTTI_ASSERT(pack_rows(bench.ctx, format, rows, kOutputs / 8).ok()); });
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
               [&] {
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
    bench_beside(bench, {.name = fmt::format("sampling {} of {}", kind.name, kVocabulary)}, [&] {
      static_cast<void>(sampler.sample(logits.span(), kind.settings, ++position));
    });
  }
}

}  // namespace

void bench_tokens(const Bench& bench) {
  bench_embedding(bench);
  bench_positions(bench);
  bench_pages(bench);
  bench_weights(bench);
  bench_sampling(bench);
  bench_choice(bench);
}

}  // namespace tutti::bench
