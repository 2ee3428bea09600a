// Attention's masks, windows, biases and cache types.
#include <algorithm>
#include <bit>

#include "tests/parity/attention_cases.h"

namespace tutti::kernels::parity {
namespace {

// Where ops look for them: on a device, in its memory.
const float* slopes() {
  static const Floats all = {0.5F, 0.25F, 0.03125F, 0.0078125F};
  return all.data();
}

AttentionShape with(AttentionShape shape, AttentionMask mask, Index window = 0, float cap = 0.0F,
                    const float* of_heads = nullptr) {
  shape.mask = mask;
  shape.window = window;
  shape.soft_cap = cap;
  shape.slopes = of_heads;
  return shape;
}

constexpr AttentionMask kCausal = AttentionMask::causal;
constexpr AttentionMask kFull = AttentionMask::full;

// Full masks; windows shorter than a block, as long as one, across several; caps, slopes, and all
// together; samples of one token, around a block, over several.
std::vector<Case> patterns() {
  return {
      {with(shape_of(2, 2, 32), kFull), {0, 1, 4, 70, 134}},
      {with(shape_of(4, 2, 64), kFull, 0, 0.0F, slopes()), {0, 20, 100}},
      {with(shape_of(2, 1, 32), kCausal, 5), {0, 3, 73, 141}},
      {with(shape_of(2, 2, 40), kCausal, 64), {0, 200}},
      {with(shape_of(1, 1, 16), kCausal, 100), {0, 230}},
      {with(shape_of(2, 2, 32), kCausal, 0, 3.0F), {0, 1, 90}},
      {with(shape_of(4, 1, 32), kCausal, 0, 0.0F, slopes()), {0, 100}},
      {with(shape_of(4, 4, 24), kCausal, 33, 2.0F, slopes()), {0, 130}},
  };
}

}  // namespace

TEST_CASE("attention: masks, windows, caps and slopes agree with their meaning") {
  Golden golden("attention forward, patterns");
  Golden log_sums("attention forward, log sums of patterns");
  for (const Case& c : patterns()) check_forward(golden, log_sums, c);
  golden.check();
  log_sums.check();
}

TEST_CASE("attention: gradients under masks, windows, caps and slopes") {
  Golden golden("attention backward, patterns");
  for (const Case& c : patterns()) check_backward(golden, c);
  golden.check();
}

TEST_CASE("attention: pieces under windows, caps and slopes have the bits of one prefill") {
  for (const Case& pattern : patterns()) {
    if (pattern.shape.mask == kFull) continue;
    const Inputs in({pattern.shape, {0, 150}});
    const Floats whole = forward(single(), in).out;
    std::vector<Index> decode = {100, 3, 2};
    decode.insert(decode.end(), 45, 1);
    for (const std::vector<Index>& pieces : {std::vector<Index>{1, 62, 3, 84}, decode}) {
      const Floats out =
          on_all_paths([&](const OpContext& ctx) { return in_pieces(ctx, in, pieces); });
      REQUIRE(same_bits(out, whole));
    }
  }
}

TEST_CASE("attention: bf16 and int8 caches give the same bits in any pieces") {
  for (const CacheType type : {CacheType::bf16, CacheType::int8}) {
    Golden golden(type == CacheType::bf16 ? "attention, bf16 cache" : "attention, int8 cache");
    for (AttentionShape shape : {shape_of(4, 2, 32), shape_of(3, 3, 24), shape_of(8, 1, 128),
                                 with(shape_of(4, 4, 64), kCausal, 70, 5.0F, slopes())}) {
      shape.cache = type;
      const Inputs in({shape, {0, 150}});
      const Floats whole = in_pieces(single(), in, {150});
      std::vector<Index> decode = {100, 3, 2};
      decode.insert(decode.end(), 45, 1);
      for (const std::vector<Index>& pieces : {std::vector<Index>{1, 62, 3, 84}, decode}) {
        const Floats out =
            on_all_paths(golden, [&](const OpContext& ctx) { return in_pieces(ctx, in, pieces); });
        REQUIRE(same_bits(out, whole));
      }
    }
    golden.check();
  }
}

TEST_CASE(
    "attention: a bf16 cache of bf16 numbers has the bits of an fp32 one, int8 is its codes") {
  Inputs in({shape_of(4, 2, 32), {0, 150}});
  for (Floats* const numbers : {&in.k, &in.v}) {
    for (float& value : *numbers) {
      value = std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) & 0xffff0000U);
    }
  }
  const Floats exact = in_pieces(single(), in, {150});
  in.c.shape.cache = CacheType::bf16;
  REQUIRE(same_bits(in_pieces(single(), in, {150}), exact));
  in.c.shape.cache = CacheType::int8;
  require_attention(in.c, in_pieces(single(), in, {150}), Table(in.q_rows()),
                    kept_in_int8(in.c, in.k), kept_in_int8(in.c, in.v));
}

TEST_CASE("attention: sequences of unequal lengths in one call have the bits of each alone") {
  struct Sequence {
    Index before, rows;  // positions that are kept already, and that come now
  };
  // A decoding row, an empty turn, a prompt, a piece over a page's border, a long context's row.
  const Sequence sequences[] = {{70, 1}, {5, 0}, {0, 90}, {60, 9}, {199, 1}};
  for (const CacheType type : {CacheType::f32, CacheType::bf16, CacheType::int8}) {
    AttentionShape shape = shape_of(4, 2, 32);
    shape.cache = type;
    INFO("cache " << static_cast<int>(type));
    std::vector<Inputs> inputs;
    std::vector<Cache> caches;
    Index rows = 0;
    for (const Sequence& s : sequences) {
      inputs.emplace_back(Case{shape, {0, static_cast<std::int32_t>(s.before + s.rows)}});
      // Each its own numbers.
      for (float& value : inputs.back().q) value *= 1.0F + static_cast<float>(rows) / 512.0F;
      caches.emplace_back(shape, s.before + s.rows);
      rows += s.rows;
    }
    const auto write = [&](const OpContext& ctx, std::size_t i, Index first, Index count) {
      const SequenceRows part{0, count, first, caches[i].pages};
      REQUIRE(kv_write(ctx, {shape, inputs[i].k_rows().row_range(first, count),
                             inputs[i].v_rows().row_range(first, count), std::span(&part, 1)}));
    };
    const Index wide = 4 * 32;
    const Index narrow = 2 * 32;
    Floats q(static_cast<std::size_t>(rows * wide));
    Floats k(static_cast<std::size_t>(rows * narrow));
    Floats v(k.size());
    Floats expected(q.size());
    std::vector<SequenceRows> all;
    Index at = 0;
    for (std::size_t i = 0; i < std::size(sequences); ++i) {
      const auto& [before, count] = sequences[i];
      const auto copy = [&](const Floats& from, Floats& to, Index width) {
        std::copy_n(from.begin() + before * width, count * width, to.begin() + at * width);
      };
      copy(inputs[i].q, q, wide);
      copy(inputs[i].k, k, narrow);
      copy(inputs[i].v, v, narrow);
      copy(in_pieces(single(), inputs[i], {before, count}), expected, wide);
      all.push_back({at, count, before, caches[i].pages});
      at += count;
    }
    const Floats together = on_all_paths([&](const OpContext& ctx) {
      for (std::size_t i = 0; i < std::size(sequences); ++i) write(ctx, i, 0, sequences[i].before);
      REQUIRE(kv_write(ctx, {shape, matrix(k, rows, narrow), matrix(v, rows, narrow), all}));
      Floats out(q.size());
      REQUIRE(attention_cached(ctx, {shape, matrix(q, rows, wide), all, matrix(out, rows, wide)}));
      return out;
    });
    CHECK(same_bits(together, expected));
  }
}

TEST_CASE("attention: pages that a window has left may be gone, and what is not finite shows") {
  const AttentionShape shape = with(shape_of(2, 1, 32), kCausal, 20);
  const Inputs in({shape, {0, 150}});
  const Floats whole = forward(single(), in).out;
  Cache cache(shape, 150);
  const SequenceRows all{0, 150, 0, cache.pages};
  REQUIRE(kv_write(single(), {shape, in.k_rows(), in.v_rows(), std::span(&all, 1)}));
  cache.pages[0] = nullptr;
  const SequenceRows last{0, 1, 149, cache.pages};
  Floats out(64);
  REQUIRE(attention_cached(
      single(), {shape, in.q_rows().row_range(149, 1), std::span(&last, 1), matrix(out, 1, 64)}));
  REQUIRE(same_bits(out, std::span(whole).last(64)));

  for (const CacheType type : {CacheType::f32, CacheType::bf16, CacheType::int8}) {
    Inputs bad({shape_of(1, 1, 32), {0, 10}});
    bad.c.shape.cache = type;
    bad.k[5 * 32] = std::numeric_limits<float>::infinity();
    bad.k[5 * 32 + 1] = std::numeric_limits<float>::quiet_NaN();
    const Floats result = in_pieces(single(), bad, {10});
    REQUIRE(std::isfinite(result[4 * 32]));
    REQUIRE(std::isnan(result[5 * 32]));
  }
}

TEST_CASE("attention: windows of a full mask, negative caps, full masks of a cache are refused") {
  const Inputs in({shape_of(2, 2, 32), {0, 10}});
  Floats out(in.q.size());
  AttentionForward args{.shape = in.c.shape,
                        .q = in.q_rows(),
                        .k = in.k_rows(),
                        .v = in.v_rows(),
                        .sample_offsets = in.c.offsets,
                        .out = matrix(out, 10, 64)};
  args.shape.mask = kFull;
  args.shape.window = 3;
  REQUIRE_FALSE(attention_forward(single(), args));
  args.shape = in.c.shape;
  args.shape.soft_cap = -1.0F;
  REQUIRE_FALSE(attention_forward(single(), args));
  args.shape = in.c.shape;
  args.shape.cache = CacheType::bf16;
  REQUIRE_FALSE(attention_forward(single(), args));
  args.shape = in.c.shape;
  args.shape.mask = kFull;
  REQUIRE_FALSE(attention_cached(single(), {args.shape, in.q_rows(), {}, matrix(out, 10, 64)}));
  REQUIRE(out == Floats(out.size()));
}

}  // namespace tutti::kernels::parity
