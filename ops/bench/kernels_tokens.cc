// Token rows and weights as they are moved: embedding, positions, pages, hashes, packing, chosen
// tokens. Shares are of the memory ceiling for each byte touched once, where operands come from
// memory.
#include <fmt/core.h>

#include <algorithm>
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
constexpr Index kVocabulary = 50257;

struct Table {
  Index tokens, vocabulary, width;
};

// Tables and rows of several models, in turns; the demo's lie in a cache.
void bench_embedding(const Bench& bench, const Table& t) {
  const double elements = static_cast<double>(t.tokens * t.width);
  const auto name = [&](const char* pass) {
    return t.width == 768
               ? fmt::format("embedding {} 8192x3072, rows of 768 from {}", pass, t.vocabulary)
               : fmt::format("embedding {} {}x{} from {}", pass, t.tokens, t.width, t.vocabulary);
  };
  if (!wanted(bench, name("forward")) && !wanted(bench, name("backward"))) return;
  std::vector<std::int32_t> tokens;
  for (Index i = 0; i < t.tokens; ++i) {
    tokens.push_back(static_cast<std::int32_t>(i * 7919 % t.vocabulary));
  }
  const double bytes = 8.0 * elements;
  const Index sets = t.vocabulary < 4096 ? 1 : sets_beyond_caches(bytes);
  Operands tables(
      t.vocabulary * t.width,
      std::min(sets, sets_beyond_caches(4.0 * static_cast<double>(t.vocabulary * t.width))));
  Operands rows(t.tokens * t.width, sets);
  const std::string torch = fmt::format(" {} {} {}", t.tokens, t.vocabulary, t.width);
  bench_beside(bench,
               {.name = name("forward"), .bytes = bytes, .written = 4.0 * elements, .sets = sets},
               "embedding_forward" + torch, [&] {
                 TUTTI_ASSERT(embedding_forward(bench.ctx,
                                                {.table = tables.in().matrix(t.vocabulary, t.width),
                                                 .tokens = tokens,
                                                 .output = rows.out().matrix(t.tokens, t.width)}));
               });
  bench_beside(
      bench,
      {.name = name("backward"), .bytes = 12.0 * elements, .written = 4.0 * elements, .sets = sets},
      "embedding_backward" + torch, [&] {
        TUTTI_ASSERT(
            embedding_backward(bench.ctx, {.dout = rows.in().matrix(t.tokens, t.width),
                                           .tokens = tokens,
                                           .dtable = tables.in().matrix(t.vocabulary, t.width)}));
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

struct Heads {
  Index tokens, heads, width;
};

// A prefill's keys and values of one layer; the demo's lie in a cache.
void bench_pages(const Bench& bench, const Heads& h) {
  struct Type {
    kernels::CacheType type;
    const char* name;
    double bytes;
  };
  const Index columns = h.heads * h.width;
  const double elements = static_cast<double>(h.tokens * columns);
  const Index sets = elements < 1e6 ? 1 : sets_beyond_caches(4.0 * elements);
  Operands operands(h.tokens * columns, sets);
  for (const Type& t :
       {Type{kernels::CacheType::f32, "f32", 4.0}, Type{kernels::CacheType::bf16, "bf16", 2.0},
        Type{kernels::CacheType::int8, "int8", 1.0}}) {
    const double bytes = 2.0 * (4.0 + t.bytes) * elements;
    const Case c{
        .name = fmt::format("kv write {} {}x{}, heads of {}", t.name, h.tokens, columns, h.width),
        .bytes = bytes,
        .written = 2.0 * t.bytes * elements,
        .sets = sets == 1 ? 1 : sets_beyond_caches(bytes)};
    if (!wanted(bench, c.name)) continue;
    const kernels::AttentionShape shape{.heads = h.heads,
                                        .kv_heads = h.heads,
                                        .head_width = h.width,
                                        .scale = 1.0F,
                                        .cache = t.type};
    const Index page = kv_page_floats(shape);
    const Index count = kernels::kv_pages_for(h.tokens);
    Operands memory(count * page, c.sets);
    bench_beside(bench, c, "", [&] {
      float* const begin = memory.out().data();
      std::vector<float*> pages;
      for (Index p = 0; p < count; ++p) pages.push_back(begin + p * page);
      const kernels::SequenceRows rows{0, h.tokens, 0, pages};
      TUTTI_ASSERT(
          kv_write(bench.ctx, {shape, operands.in().matrix(h.tokens, columns),
                               operands.in().matrix(h.tokens, columns), std::span(&rows, 1)}));
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
    const std::size_t row = kernels::row_bytes(format, kInputs);
    std::vector<std::byte> rows(row * kRows);
    const double made = static_cast<double>(rows.size());
    bench_beside(bench,
                 {.name = quantise,
                  .bytes = 4.0 * kValues + made,
                  .written = made,
                  .sets = sets_beyond_caches(4.0 * kValues)},
                 "", [&] {
                   const kernels::Matrix from = values.in().matrix(kRows, kInputs);
                   TUTTI_ASSERT(quantise_weight(bench.ctx, format, from).ok());
                 });
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
    const char* torch = "";
  };
  for (const Kind& kind :
       {Kind{"greedy", {.temperature = 0.0}, "sampling_greedy"},
        Kind{"temperature", {.temperature = 0.8}, "sampling_temperature"},
        Kind{"top-k 50", {.top_k = 50}, "sampling_top_k"}, Kind{"top-p 0.9", {.top_p = 0.9}},
        Kind{"min-p 0.05", {.min_p = 0.05}}, Kind{"typical 0.9", {.typical_p = 0.9}}}) {
    const Case c{.name = fmt::format("sampling {} of {}", kind.name, kVocabulary)};
    const bool peer = *kind.torch != '\0';
    bench_beside(bench, c, peer ? fmt::format("{} {}", kind.torch, kVocabulary) : "", [&] {
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
  bench_embedding(bench, {4 * kTokens, kVocabulary, 768});
  bench_embedding(bench, {kTokens, 32000, 4096});
  bench_embedding(bench, {2048, 2048, 192});
  bench_angles(bench);
  for (const Heads& heads : {Heads{kTokens, 24, 128}, Heads{kTokens, 12, 64},
                             Heads{kTokens, 8, 128}, Heads{2048, 6, 32}}) {
    bench_pages(bench, heads);
  }
  bench_weights(bench);
  bench_formats(bench);
  bench_sampling(bench);
  bench_penalties(bench);
  bench_choice(bench);
}

}  // namespace tutti::bench
