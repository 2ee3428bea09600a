// As nonfinite_test.cc, for attention: what is not finite, or huge, reaches the queries that see
// it, in prefill, in pieces and in decoding alike, and no other; the same backward.
#include <limits>
#include <utility>

#include "tests/parity/attention_cases.h"

namespace tutti::kernels::parity {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Rows [first, first + rows) and columns of one head in a matrix of `columns`.
struct Band {
  Index first, rows, head;
};

// The band's numbers in the matrix that begins at `at` of `all`.
Floats band_of(const Floats& all, Index at, Index columns, Index width, const Band& band) {
  Floats some;
  for (Index r = band.first; r < band.first + band.rows; ++r) {
    const auto from = all.begin() + at + r * columns + band.head * width;
    some.insert(some.end(), from, from + width);
  }
  return some;
}

bool all_nan(const Floats& values) {
  return std::all_of(values.begin(), values.end(), [](float v) { return std::isnan(v); });
}

// One sample: four heads of 16, two of queries for each of keys.
constexpr Index kTokens = 150;
constexpr Index kWidth = 16;

enum class Rules { plain, biased };  // biased: a soft cap and slopes

AttentionShape under(AttentionShape shape, Rules rules) {
  static const Floats slopes = {0.5F, 0.25F, 0.03125F, 0.0078125F};
  if (rules == Rules::biased) {
    shape.soft_cap = 5.0F;
    shape.slopes = slopes.data();
  }
  return shape;
}

AttentionShape shape_with(CacheType type, Index window) {
  AttentionShape shape = shape_of(4, 2, kWidth);
  shape.cache = type;
  shape.window = window;
  return shape;
}

// Two windows, each without and with biases.
struct Pattern {
  Index window;
  Rules rules;
};
constexpr Pattern kPatterns[] = {
    {0, Rules::plain}, {20, Rules::plain}, {0, Rules::biased}, {20, Rules::biased}};

// Each cache under each pattern; on the emulation one cache under each.
struct Cached {
  CacheType type;
  Pattern pattern;
};
std::vector<Cached> cached(std::span<const Pattern> patterns) {
  constexpr CacheType kTypes[] = {CacheType::f32, CacheType::bf16, CacheType::int8};
  std::vector<Cached> all;
  for (std::size_t t = 0; t < std::size(kTypes); ++t) {
    for (std::size_t p = 0; p < patterns.size(); ++p) {
      if (!is_emulated() || p % std::size(kTypes) == t) all.push_back({kTypes[t], patterns[p]});
    }
  }
  return all;
}

float& element(Floats& values, Index columns, Index row, Index head) {
  return values[static_cast<std::size_t>(row * columns + head * kWidth + 3)];
}

Floats decoded(const OpContext& ctx, const Inputs& in) {
  std::vector<Index> pieces = {60, 3, 2};
  pieces.insert(pieces.end(), kTokens - 65, 1);
  return one_nan(in_pieces(ctx, in, pieces));
}

// The output on all paths, which prefill as a whole, in pieces, and decoding are required to give.
Floats every_way(const Inputs& in) {
  const Floats whole =
      on_all_paths([&](const OpContext& ctx) { return one_nan(in_pieces(ctx, in, {kTokens})); });
  CHECK(same_bits(on_all_paths([&](const OpContext& ctx) {
                    return one_nan(in_pieces(ctx, in, {1, 62, 3, 30, kTokens - 96}));
                  }),
                  whole));
  CHECK(same_bits(on_all_paths([&](const OpContext& ctx) { return decoded(ctx, in); }), whole));
  return whole;
}

}  // namespace

TEST_CASE("not finite: attention's queries, keys and values spoil what sees them, in any pieces") {
  for (const auto& [type, pattern] : cached(kPatterns)) {
    const auto [window, rules] = pattern;
    INFO("cache " << static_cast<int>(type) << ", window " << window << ", rules "
                  << static_cast<int>(rules));
    Inputs in({under(shape_with(type, window), rules), {0, kTokens}});
    const Floats good = every_way(in);
    const Index wide = in.c.wide();
    const Index narrow = in.c.narrow();
    element(in.q, wide, 20, 1) = kNan;
    element(in.q, wide, 63, 0) = 3e38F;
    element(in.q, wide, 66, 2) = -kInfinity;
    element(in.k, narrow, 70, 0) = kNan;       // heads 0 and 1
    element(in.v, narrow, 71, 1) = kInfinity;  // heads 2 and 3
    element(in.k, narrow, 100, 0) = 3e38F;
    element(in.v, narrow, 101, 1) = kNan;
    const Floats bad = every_way(in);
    const Index last_seen_by = window == 0 ? kTokens : 70 + window;
    for (Index head = 0; head < 4; ++head) {
      const auto band = [&](const Floats& of, Index first, Index end) {
        return band_of(of, 0, wide, kWidth, {first, end - first, head});
      };
      const auto same = [&](Index first, Index end) {
        return same_bits(band(bad, first, end), band(good, first, end));
      };
      INFO("head " << head);
      CHECK(same(0, 20));
      CHECK(same(20, 21) == (head != 1));
      CHECK(same(21, 63));
      CHECK(same(64, 66));
      CHECK(same(66, 67) == (head != 2));
      CHECK(same(67, 70));
      if (window > 0) CHECK(same(71 + window, 100));
      if (window > 0) CHECK(same(101 + window, kTokens));
      if (head < 2) CHECK(all_nan(band(bad, 70, last_seen_by)));
      if (head >= 2) CHECK_FALSE(same(71, 72));
    }
    CHECK(all_nan(band_of(bad, 0, wide, kWidth, {20, 1, 1})));
  }
}

TEST_CASE("not finite: under a full mask a key spoils its sample, a value a column of it") {
  constexpr Index kBorder = 70;  // between the samples
  for (const Rules rules : {Rules::plain, Rules::biased}) {
    AttentionShape shape = under(shape_of(4, 2, kWidth), rules);
    shape.mask = AttentionMask::full;
    const Inputs in({shape, {0, kBorder, kTokens}});
    const Index wide = in.c.wide();
    const Index narrow = in.c.narrow();
    const auto run = [](const Inputs& inputs) {
      return on_all_paths([&](const OpContext& ctx) { return one_nan(forward(ctx, inputs).out); });
    };
    const Floats good = run(in);
    const auto rows_of = [&](const Floats& of, Index first, Index end, Index head) {
      return band_of(of, 0, wide, kWidth, {first, end - first, head});
    };
    Inputs query = in;
    element(query.q, wide, 20, 1) = kNan;
    Inputs key = in;
    element(key.k, narrow, 80, 1) = kNan;
    Inputs huge = in;
    element(huge.k, narrow, 80, 1) = 3e38F;
    Inputs value = in;
    element(value.v, narrow, 90, 1) = kInfinity;
    const Floats by_query = run(query);
    const Floats by_key = run(key);
    const Floats by_huge = run(huge);
    Floats by_value = run(value);
    for (Index head = 0; head < 4; ++head) {
      INFO("rules " << static_cast<int>(rules) << ", head " << head);
      const bool spoiled = head >= 2;
      const auto same = [&](const Floats& bad, Index first, Index end) {
        return same_bits(rows_of(bad, first, end, head), rows_of(good, first, end, head));
      };
      CHECK(same(by_query, 0, 20));
      CHECK(same(by_query, 21, kTokens));
      CHECK(all_nan(rows_of(by_query, 20, 21, head)) == (head == 1));
      for (const Floats* const bad : {&by_key, &by_huge, &std::as_const(by_value)}) {
        CHECK(same(*bad, 0, kBorder));
        CHECK(same(*bad, kBorder, kTokens) == !spoiled);
      }
      CHECK(all_nan(rows_of(by_key, kBorder, kTokens, head)) == spoiled);
      for (Index row = kBorder; row < kTokens && spoiled; ++row) {
        const auto at = static_cast<std::size_t>(row * wide + head * kWidth + 3);
        CHECK_FALSE(std::isfinite(by_value[at]));
        by_value[at] = good[at];
      }
    }
    CHECK(same_bits(by_value, good));
  }
}

namespace {

// Queries whose products with keys [begin, end) are -inf, and with others as they were.
void overflow(Inputs& in, Index begin, Index end) {
  in.c.shape.soft_cap = 0.0F;  // under which no score overflows
  for (float& value : in.q) value = 1e25F * std::abs(value);
  for (Index i = 0; i < static_cast<Index>(in.k.size()); ++i) {
    float& value = in.k[static_cast<std::size_t>(i)];
    value = i / in.c.narrow() >= begin && i / in.c.narrow() < end ? -1e25F : 1e-25F * value;
  }
}

// What queries from row `from` on give over keys from there on alone.
Floats alone_from(const Inputs& in, Index from) {
  const Index rows = in.c.tokens() - from;
  Inputs late({in.c.shape, {0, static_cast<std::int32_t>(rows)}});
  const auto tail = [&](const Floats& values, Index columns) {
    return Floats(values.begin() + from * columns, values.end());
  };
  late.q = tail(in.q, in.c.wide());
  late.k = tail(in.k, in.c.narrow());
  late.v = tail(in.v, in.c.narrow());
  return in_pieces(single(), late, {rows});
}

}  // namespace

// Products of -inf in a block: keys of the second one, by queries that see it in part (a window
// that has left half of it) or as a whole, and go on to keys of finite scores.
TEST_CASE("not finite: scores that overflow downwards weigh nothing beside finite ones") {
  constexpr Index kEnd = 128;
  constexpr Pattern kSeen[] = {{0, Rules::plain}, {40, Rules::plain}, {40, Rules::biased}};
  for (const auto& [type, pattern] : cached(kSeen)) {
    const auto [window, rules] = pattern;
    INFO("cache " << static_cast<int>(type) << ", window " << window << ", rules "
                  << static_cast<int>(rules));
    Inputs in({under(shape_with(type, window), rules), {0, kTokens}});
    overflow(in, window == 0 ? 0 : 64, kEnd);
    const Floats all = every_way(in);
    CHECK(same_bits(Floats(all.begin() + kEnd * in.c.wide(), all.end()), alone_from(in, kEnd)));
    // Where no score is finite nothing is left to divide by.
    CHECK(std::isnan(all[static_cast<std::size_t>((kEnd - 1) * in.c.wide())]));
  }
}

// So many that a GPU has them in two chunks of their own (kernels/cuda/attention/chunks.h).
TEST_CASE("not finite: thousands of scores that overflow weigh nothing beside finite ones") {
  constexpr Index kEnd = 2048;
  constexpr Index kRows = 12;
  Inputs in({shape_with(CacheType::f32, 0), {0, kEnd + kRows}});
  overflow(in, 0, kEnd);
  const Floats alone = alone_from(in, kEnd);
  for (const Index piece : {kRows, Index{1}}) {
    const auto run = [&](const OpContext& ctx) {
      Cache cache(in.c.shape, in.c.tokens());
      const SequenceRows written{0, in.c.tokens(), 0, cache.pages};
      REQUIRE(kv_write(ctx, {in.c.shape, in.k_rows(), in.v_rows(), std::span(&written, 1)}));
      Floats out(alone.size());
      for (Index done = 0; done < kRows; done += piece) {
        const SequenceRows rows{0, piece, kEnd + done, cache.pages};
        REQUIRE(attention_cached(
            ctx, {in.c.shape, in.q_rows().row_range(kEnd + done, piece), std::span(&rows, 1),
                  matrix(out, kRows, in.c.wide()).row_range(done, piece)}));
      }
      return out;
    };
    CHECK(same_bits(on_all_paths(run), alone));
  }
}

namespace {

// Of a batch of two samples, the second over three blocks; dq, dk and dv one after the other.
struct Gradients {
  Case c;
  Floats all;

  bool same(const Gradients& other, Index at, Index columns, const Band& band) const {
    return same_bits(band_of(all, at, columns, c.shape.head_width, band),
                     band_of(other.all, at, columns, c.shape.head_width, band));
  }
  bool same_dq(const Gradients& other, const Band& band) const {
    return same(other, 0, c.wide(), band);
  }
  bool same_keys(const Gradients& other, const Band& band) const {
    const Index dk = c.tokens() * c.wide();
    return same(other, dk, c.narrow(), band) &&
           same(other, dk + c.tokens() * c.narrow(), c.narrow(), band);
  }
};

}  // namespace

TEST_CASE("not finite: attention's gradients spoil the pairs that see each other, no others") {
  constexpr Index kSecond = 20;  // where the second sample begins
  constexpr Index kEnd = 170;
  constexpr AttentionMask kCausal = AttentionMask::causal;
  constexpr AttentionMask kFull = AttentionMask::full;
  struct Of {
    AttentionMask mask;
    Index window;
    Rules rules;
  };
  for (const Of& of : {Of{kCausal, 0, Rules::plain}, Of{kCausal, 30, Rules::plain},
                       Of{kCausal, 30, Rules::biased}, Of{kFull, 0, Rules::biased}}) {
    // Two heads of 24 columns: whole tiles and an end.
    AttentionShape shape = under(shape_of(2, 1, 24), of.rules);
    shape.mask = of.mask;
    shape.window = of.window;
    const bool full = of.mask == kFull;
    const Inputs in({shape, {0, kSecond, kEnd}});
    const Forward f = forward(single(), in);
    const Floats dout = draw(static_cast<Index>(in.q.size()), 4);
    const auto gradients = [&](const Inputs& inputs, const Floats& from) {
      return Gradients{in.c, on_all_paths([&](const OpContext& ctx) {
                         return one_nan(backward(ctx, inputs, f, from));
                       })};
    };
    const Gradients good = gradients(in, dout);
    INFO("mask " << static_cast<int>(of.mask) << ", window " << of.window << ", rules "
                 << static_cast<int>(of.rules));
    // In the first block, on borders of blocks and in their middle.
    for (const Index query : {Index{5}, kSecond + 63, kSecond + 75}) {
      for (const float value : {kNan, 3e38F}) {
        INFO("query " << query << ", " << value);
        Floats spoiled = dout;
        spoiled[static_cast<std::size_t>(query * in.c.wide() + 5)] = value;
        const Gradients bad = gradients(in, spoiled);
        for (const Index head : {0, 1}) {
          CHECK(bad.same_dq(good, {0, query, head}));
          CHECK(bad.same_dq(good, {query + 1, kEnd - query - 1, head}));
          CHECK(bad.same_dq(good, {query, 1, head}) == (head == 1));
        }
        const Index sample = query < kSecond ? 0 : kSecond;
        const Index seen = of.window == 0 ? sample : std::max(sample, query - of.window + 1);
        const Index end = full ? (query < kSecond ? kSecond : kEnd) : query + 1;
        CHECK(bad.same_keys(good, {0, seen, 0}));
        CHECK(bad.same_keys(good, {end, kEnd - end, 0}));
        CHECK_FALSE(bad.same_keys(good, {seen, 1, 0}));
        CHECK_FALSE(bad.same_keys(good, {end - 1, 1, 0}));
      }
    }
    for (const Index key : {Index{9}, kSecond + 40, kSecond + 64}) {
      INFO("key " << key);
      Inputs spoiled = in;
      spoiled.k[static_cast<std::size_t>(key * in.c.narrow() + 5)] = kInfinity;
      const Gradients bad = gradients(spoiled, dout);
      const Index sample = key < kSecond ? kSecond : kEnd;
      const Index seen = of.window == 0 ? sample : std::min(sample, key + of.window);
      const Index first = full ? (key < kSecond ? 0 : kSecond) : key;
      for (const Index head : {0, 1}) {
        CHECK(bad.same_dq(good, {0, first, head}));
        CHECK(bad.same_dq(good, {seen, kEnd - seen, head}));
        CHECK_FALSE(bad.same_dq(good, {first, 1, head}));
      }
      CHECK(bad.same_keys(good, {0, key, 0}));
      CHECK(bad.same_keys(good, {key + 1, kEnd - key - 1, 0}));
    }
  }
}

}  // namespace tutti::kernels::parity
