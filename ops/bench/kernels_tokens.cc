// Token rows and weights as they are moved: embedding, positions, pages, hashes, packing, chosen
// tokens. Shares are of the memory ceiling for each byte touched once, where operands come from
// memory.
#include <fmt/core.h>

#include <algorithm>
#include <string>
#include <utility>
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
#include "ops/bench/kernels_shapes.h"

namespace tutti::bench {

using kernels::FloatBuffer;
using kernels::Index;

namespace {

constexpr Index kTokens = 8192;
// Of the demo, of GPT-2 and of Llama.
constexpr Index kVocabularies[] = {2048, 50257, 32000};
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
void bench_angles(const Bench& bench, Index tokens, Index half) {
  const FloatBuffer cosine(tokens * half);
  const FloatBuffer sine(tokens * half);
  std::vector<std::int32_t> positions;
  for (std::int32_t i = 0; i < tokens; ++i) positions.push_back(i);
  const std::vector<float> frequencies = kernels::rotary_frequencies({.width = 2 * half});
  bench_beside(bench,
               {.name = fmt::format("rotary angles {}x{}", tokens, half),
                .bytes = 8.0 * static_cast<double>(tokens * half)},
               fmt::format("rotary_angles {} {}", tokens, half), [&] {
                 TUTTI_ASSERT(rotary_angles(bench.ctx, {.positions = positions,
                                                        .frequencies = frequencies,
                                                        .cosine = cosine.matrix(tokens, half),
                                                        .sine = sine.matrix(tokens, half)}));
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
    const bool has_peer = t.type != kernels::CacheType::int8;
    const std::string torch = fmt::format("kv_write_{} {} {}", t.name, h.tokens, columns);
    bench_beside(bench, c, has_peer ? torch : "", [&] {
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

// Weights of a linear layer as they are moved; the demo's lie in a cache.
class Weights {
 public:
  Weights(const Bench& bench, Index outputs, Index inputs)
      : bench_(bench),
        outputs_(outputs),
        inputs_(inputs),
        operands_(outputs * inputs, sets(4.0 * elements())) {}

  void hash() {
    std::vector<kernels::Hash128> hashes(
        static_cast<std::size_t>(kernels::grid_blocks(outputs_ * inputs_)));
    row("hash blocks", {4, 0},
        [&] { TUTTI_ASSERT(hash_blocks(bench_.ctx, operands_.in().span(), hashes)); });
  }
  // Images are made anew each time, so the pages of their memory are made in that time, too.
  void pack() {
    row("pack weight", {4, 4}, [&] { TUTTI_ASSERT(pack_weight(bench_.ctx, in()).ok()); });
    struct Kind {
      kernels::Bf16Arithmetic arithmetic;
      const char* name;
    };
    for (const Kind& kind : {Kind{kernels::Bf16Arithmetic::widened, "widened"},
                             Kind{kernels::Bf16Arithmetic::native, "native"},
                             Kind{kernels::Bf16Arithmetic::tiles, "tiles"}}) {
      if (!kernels::has_bf16(kind.arithmetic)) continue;
      row(fmt::format("pack bf16 weight {}", kind.name), {2, 2}, [&] {
        const auto* const halves = reinterpret_cast<const kernels::Bf16*>(operands_.in().data());
        TUTTI_ASSERT(
            pack_bf16_weight(bench_.ctx, {halves, outputs_, inputs_}, kind.arithmetic).ok());
      });
    }
  }
  void to_int8() {
    std::vector<std::int8_t> codes;
    const FloatBuffer scales(outputs_);
    row("to int8 rows", {4, 1}, [&] {
      codes.resize(static_cast<std::size_t>(outputs_ * inputs_));
      TUTTI_ASSERT(to_int8_rows(bench_.ctx, {.x = in(),
                                             .codes = {codes.data(), outputs_, inputs_},
                                             .scales = scales.matrix(outputs_, 1)}));
    });
  }
  // Quantised, read again, and laid out.
  void change(kernels::WeightFormat format) {
    const std::string name(to_string(format));
    if (!wanted(bench_, name_of("quantise weight " + name)) &&
        !wanted(bench_, name_of("dequantise " + name)) &&
        !wanted(bench_, name_of("pack rows " + name))) {
      return;
    }
    const std::size_t size = kernels::row_bytes(format, inputs_);
    std::vector<std::byte> rows(size * static_cast<std::size_t>(outputs_));
    const auto part = [&](auto* bytes, Index row) {
      return std::span(bytes + static_cast<std::size_t>(row) * size, size);
    };
    const kernels::ConstMatrix weight = in();
    for (Index o = 0; o < outputs_; ++o) {
      TUTTI_ASSERT(
          kernels::quantise_row(format, std::span(weight.row(o), static_cast<std::size_t>(inputs_)),
                                part(rows.data(), o)));
    }
    const double stored = static_cast<double>(rows.size()) / elements();
    row("quantise weight " + name, {4, stored},
        [&] { TUTTI_ASSERT(quantise_weight(bench_.ctx, format, in()).ok()); });
    Copies copies(rows.data(), rows.size(), sets(static_cast<double>(rows.size())));
    row("dequantise " + name, {stored, 4}, [&] {
      const std::byte* const from = copies.next();
      float* const to = operands_.out().data();
      for (Index o = 0; o < outputs_; ++o) {
        TUTTI_ASSERT(kernels::dequantise_row(
            format, part(from, o), std::span(to + o * inputs_, static_cast<std::size_t>(inputs_))));
      }
    });
    row("pack rows " + name, {stored, stored}, [&] {
      TUTTI_ASSERT(
          pack_rows(bench_.ctx, format, std::span(copies.next(), rows.size()), outputs_).ok());
    });
  }

 private:
  struct PerWeight {
    double read, written;  // bytes
  };
  double elements() const { return static_cast<double>(outputs_ * inputs_); }
  Index sets(double bytes) const {
    return 4.0 * elements() < kCachedBytes ? 1 : sets_beyond_caches(bytes);
  }
  std::string name_of(const std::string& what) const {
    return fmt::format("{} {}x{}", what, outputs_, inputs_);
  }
  void row(const std::string& what, const PerWeight& bytes, const Run& run) {
    bench_beside(bench_,
                 {.name = name_of(what),
                  .bytes = (bytes.read + bytes.written) * elements(),
                  .written = bytes.written * elements(),
                  .sets = sets(bytes.read * elements())},
                 "", run);
  }
  kernels::ConstMatrix in() { return operands_.in().matrix(outputs_, inputs_); }

  const Bench& bench_;
  Index outputs_, inputs_;
  Operands operands_;
};

void bench_weights(const Bench& bench) {
  for (const auto& [outputs, inputs] :
       {std::pair<Index, Index>{192, 512}, {3072, 768}, {11008, 4096}}) {
    Weights weights(bench, outputs, inputs);
    weights.hash();
    weights.pack();
    weights.to_int8();
    if (outputs == 11008) continue;
    for (const auto format : {kernels::WeightFormat::q8_0, kernels::WeightFormat::q4_k}) {
      weights.change(format);
    }
  }
  // An eighth of it in each format.
  Weights part(bench, 1376, 4096);
  for (const kernels::WeightFormat format : kernels::kWeightFormats) part.change(format);
}

FloatBuffer spread_logits(const Bench& bench, Index count) {
  FloatBuffer logits = numbers(bench, count, 1);
  for (float& logit : logits.span()) logit *= 8.0F;
  return logits;
}

// A decoding step of eight requests: greedy with log-probabilities, and drawn.
void bench_choice(const Bench& bench, Index vocabulary) {
  constexpr Index kRows = 8;
  const FloatBuffer logits = spread_logits(bench, kRows * vocabulary);
  std::vector<kernels::TokenDraw> draws;
  for (std::uint64_t row = 0; row < kRows; ++row) {
    const bool greedy = row % 2 == 0;
    draws.push_back({.settings = {.temperature = greedy ? 0.0 : 0.8, .top_k = greedy ? 0 : 50},
                     .position = row,
                     .logprob = greedy});
  }
  std::vector<kernels::ChosenToken> chosen(kRows);
  bench_beside(bench,
               {.name = fmt::format("choose tokens, {} rows of {}", kRows, vocabulary),
                .bytes = 4.0 * static_cast<double>(kRows * vocabulary)},
               fmt::format("choose_tokens {} {}", kRows, vocabulary), [&] {
                 TUTTI_ASSERT(choose_tokens(
                     bench.ctx, {logits.matrix(kRows, vocabulary), draws, chosen.data()}));
               });
}

void bench_sampling(const Bench& bench, Index vocabulary) {
  const FloatBuffer logits = spread_logits(bench, vocabulary);
  kernels::Sampler sampler;
  std::uint64_t position = 0;
  struct Kind {
    const char* name;
    kernels::SamplingSettings settings;
    const char* torch;
  };
  for (const Kind& kind :
       {Kind{"greedy", {.temperature = 0.0}, "greedy"},
        Kind{"temperature", {.temperature = 0.8}, "temperature"},
        Kind{"top-k 50", {.top_k = 50}, "top_k"}, Kind{"top-p 0.9", {.top_p = 0.9}, "top_p"},
        Kind{"min-p 0.05", {.min_p = 0.05}, "min_p"},
        Kind{"typical 0.9", {.typical_p = 0.9}, "typical"}}) {
    bench_beside(bench, {.name = fmt::format("sampling {} of {}", kind.name, vocabulary)},
                 fmt::format("sampling_{} {}", kind.torch, vocabulary), [&] {
                   static_cast<void>(sampler.sample(logits.span(), kind.settings, ++position));
                 });
  }
}

// What a request of two thousand tokens holds, before each of its draws.
void bench_penalties(const Bench& bench, Index vocabulary) {
  constexpr Index kSeen = 2048;
  FloatBuffer logits = numbers(bench, vocabulary, 1);
  std::vector<std::int32_t> seen;
  for (Index i = 0; i < kSeen; ++i) {
    seen.push_back(static_cast<std::int32_t>(i * i * 7919 % vocabulary));
  }
  const kernels::TokenBias biases[] = {{3, 1.0F}, {5, -1.0F}};
  kernels::Sampler sampler;
  bench_beside(bench, {.name = fmt::format("penalties of {} tokens of {}", kSeen, vocabulary)},
               fmt::format("penalties {} {}", kSeen, vocabulary), [&] {
                 sampler.penalise(
                     logits.span(),
                     {.repetition = 1.1F, .frequency = 0.5F, .presence = 0.25F, .biases = biases},
                     seen);
               });
}

}  // namespace

void bench_tokens(const Bench& bench) {
  bench_embedding(bench, {4 * kTokens, kVocabulary, 768});
  bench_embedding(bench, {kTokens, 32000, 4096});
  bench_embedding(bench, {2048, 2048, 192});
  bench_angles(bench, 2048, 16);
  bench_angles(bench, kTokens, 32);
  bench_angles(bench, kTokens, 64);
  for (const Heads& heads : {Heads{kTokens, 24, 128}, Heads{kTokens, 12, 64},
                             Heads{kTokens, 8, 128}, Heads{2048, 6, 32}}) {
    bench_pages(bench, heads);
  }
  bench_weights(bench);
  for (const Index vocabulary : kVocabularies) {
    bench_sampling(bench, vocabulary);
    bench_penalties(bench, vocabulary);
    bench_choice(bench, vocabulary);
  }
}

}  // namespace tutti::bench
