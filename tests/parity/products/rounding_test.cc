// In a scope that rounds, products are those of the bf16 numbers, bit for bit, and attention is
// that of rounded inputs but for the rounding of its weights.
#include "kernels/tensor/rounding.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <span>
#include <thread>

#include "kernels/ops/elementwise/fp16.h"
#include "kernels/ops/product_bf16.h"
#include "kernels/ops/weights/packed_weight.h"
#include "tests/parity/attention_cases.h"
#include "tests/support/larger.h"

namespace tutti::kernels::parity {
namespace {

constexpr Bf16Arithmetic kArithmetics[] = {Bf16Arithmetic::widened, Bf16Arithmetic::native,
                                           Bf16Arithmetic::tiles};

using Halves = std::vector<Bf16>;

Halves halved(const Floats& values) {
  Halves result(values.size());
  REQUIRE(to_bf16(single(), values, result));
  return result;
}

Floats rounded(const Floats& values) {
  Floats result(values.size());
  REQUIRE(from_bf16(single(), halved(values), result));
  return result;
}

struct Shape {
  Index m, n, k;
};
// On both sides of 256 rows, and ends within tiles and groups.
const Shape kShapes[] = {{1, 1, 1},   {0, 3, 4},     {3, 2, 0},      {2, 70, 33},
                         {33, 65, 7}, {100, 48, 95}, {257, 100, 64}, {600, 33, 130}};
// In several blocks of rows, columns and k.
const Shape kBlocks[] = {{300, 330, 1101}};

struct Kind {
  Result<> (*op)(const OpContext&, const Product&);
  Result<> (*halves)(const OpContext&, const Bf16Product&);
  bool left_turned;
  bool right_turned;  // [column][k]
};
const Kind kKinds[] = {{product_nt, product_bf16_nt, false, true},
                       {product_nn, product_bf16_nn, false, false},
                       {product_tn, product_bf16_tn, true, false}};

struct Operands {
  Operands(const Kind& kind, const Shape& s)
      : left_rows(kind.left_turned ? s.k : s.m),
        left_columns(kind.left_turned ? s.m : s.k),
        right_rows(kind.right_turned ? s.n : s.k),
        right_columns(kind.right_turned ? s.k : s.n),
        left(draw(s.m * s.k, 1)),
        right(draw(s.n * s.k, 2)),
        before(draw(s.m * s.n, 3)),
        bias(draw(s.n, 4)) {
    put_odd_ones(left, left_rows, left_columns);
    put_odd_ones(right, right_rows, right_columns);
  }

  // A denormal, and what is not finite, once with a bit that is cut off. In the first whole square
  // ties to either side and the largest number, too, each in a row and a column of its own.
  static void put_odd_ones(Floats& x, Index rows, Index columns) {
    if (!x.empty()) x[0] = 0x1p-140F;
    const auto put = [&](Index at, std::uint32_t bits) {
      x[static_cast<std::size_t>(at)] = std::bit_cast<float>(bits);
    };
    constexpr std::uint32_t kOdd[] = {0x3f808000U, 0x3f818000U, 0x7f7fffffU, 0xff800000U,
                                      0x7f800001U};
    if (rows >= 16 && columns >= 16) {
      for (Index i = 0; i < 5; ++i) put(3 * (i + 1) * columns + i + 1, kOdd[i]);
    } else if (x.size() > 60) {
      put(50, kOdd[4]);
      put(60, kOdd[3]);
    }
  }

  Index left_rows, left_columns, right_rows, right_columns;
  Floats left, right, before, bias;
};

Floats in_scope(const OpContext& ctx, const Kind& kind, const Shape& s, const Operands& x) {
  Floats output = x.before;
  REQUIRE(kind.op(ctx, {.left = matrix(x.left, x.left_rows, x.left_columns),
                        .right = matrix(x.right, x.right_rows, x.right_columns),
                        .output = matrix(output, s.m, s.n),
                        .start = ChainStart::output,
                        .bias = x.bias.data()}));
  return output;
}

// Of each form and shape: run_all requires what expected_of gives of the product in a scope.
template <class Expected, class RunAll>
void check_products(std::span<const Shape> shapes, const Expected& expected_of,
                    const RunAll& run_all) {
  for (const Kind& kind : kKinds) {
    for (const Shape& s : shapes) {
      INFO(s.m << " x " << s.n << " x " << s.k);
      const Operands x(kind, s);
      const Floats expected = one_nan(expected_of(kind, s, x));
      run_all(expected, [&](const OpContext& ctx) { return one_nan(in_scope(ctx, kind, s, x)); });
      const RoundingScope none(std::nullopt);
      if (s.k > 64) CHECK_FALSE(same_bits(one_nan(in_scope(single(), kind, s, x)), expected));
    }
  }
}

Floats of_halves(Bf16Arithmetic arithmetic, const Kind& kind, const Shape& s, const Operands& x) {
  const Halves left = halved(x.left);
  const Halves right = halved(x.right);
  Floats output = x.before;
  REQUIRE(kind.halves(single(), {.left = {left.data(), x.left_rows, x.left_columns},
                                 .right = {right.data(), x.right_rows, x.right_columns},
                                 .output = matrix(output, s.m, s.n),
                                 .arithmetic = arithmetic,
                                 .start = ChainStart::output,
                                 .bias = x.bias.data()}));
  return output;
}

// On every path, in a scope of its own thread.
auto on_all_paths_rounded(const Rounding& rounding) {
  return [rounding](const Floats& expected, const auto& run) {
    REQUIRE(same_bits(on_all_paths([&](const OpContext& ctx) {
                        const RoundingScope scope(rounding);
                        return run(ctx);
                      }),
                      expected));
  };
}

}  // namespace

TEST_CASE("rounding: products in a scope are those of the rounded numbers, on all paths") {
  const auto expected_of = [](Bf16Arithmetic arithmetic) {
    return [arithmetic](const Kind& kind, const Shape& s, const Operands& x) {
      return of_halves(arithmetic, kind, s, x);
    };
  };
  check_products(kShapes, expected_of(Bf16Arithmetic::widened),
                 on_all_paths_rounded(Bf16Arithmetic::widened));
  // The others are one path's.
  ThreadPool pools[] = {ThreadPool(1), ThreadPool(2), ThreadPool(3), ThreadPool(4), ThreadPool(7)};
  for (const Bf16Arithmetic arithmetic : {Bf16Arithmetic::native, Bf16Arithmetic::tiles}) {
    if (!has_bf16(arithmetic)) continue;
    INFO(profile_of(arithmetic));
    for (const std::span<const Shape> shapes :
         {std::span<const Shape>(kShapes), std::span<const Shape>(kBlocks)}) {
      check_products(shapes, expected_of(arithmetic), [&](const Floats& expected, const auto& run) {
        for (ThreadPool& pool : pools) {
          const RoundingScope scope(arithmetic);
          REQUIRE(same_bits(run({.pool = &pool}), expected));
        }
      });
    }
  }
}

TEST_CASE("rounding: to fp16 it is to the nearest of all its numbers, ties to even") {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::vector<float> all;  // those from zero on, in order
  for (int i = 0; i < 0x400; ++i) all.push_back(std::ldexp(static_cast<float>(i), -24));
  for (int exponent = -14; exponent <= 15; ++exponent) {
    for (int i = 0x400; i < 0x800; ++i) {
      all.push_back(std::ldexp(static_cast<float>(i), exponent - 10));
    }
  }
  REQUIRE(all.back() == 65504.0F);
  all.push_back(65536.0F);  // where the next one would be, infinity is
  std::size_t wrong = 0;
  for (std::size_t i = 0; i + 1 < all.size(); ++i) {
    const float low = all[i];
    const float high = i + 2 < all.size() ? all[i + 1] : kInfinity;
    const float middle = (low + all[i + 1]) / 2;
    const auto rounds = [](float x, float to) {
      return std::bit_cast<std::uint32_t>(rounded_to_fp16(x)) == std::bit_cast<std::uint32_t>(to) &&
             std::bit_cast<std::uint32_t>(rounded_to_fp16(-x)) == std::bit_cast<std::uint32_t>(-to);
    };
    wrong += rounds(low, low) ? 0 : 1;
    wrong += rounds(middle, i % 2 == 0 ? low : high) ? 0 : 1;
    wrong += rounds(std::nextafter(middle, 0.0F), low) ? 0 : 1;
    wrong += rounds(std::nextafter(middle, kInfinity), high) ? 0 : 1;
  }
  CHECK(wrong == 0);
  CHECK(rounded_to_fp16(kInfinity) == kInfinity);
  CHECK(rounded_to_fp16(std::numeric_limits<float>::max()) == kInfinity);
  CHECK(rounded_to_fp16(0x1p-140F) == 0.0F);
  CHECK(std::isnan(rounded_to_fp16(std::bit_cast<float>(0x7f800001U))));
}

TEST_CASE("rounding: products in an fp16 scope are those of the rounded numbers, on all paths") {
  const auto expected_of = [](const Kind& kind, const Shape& s, const Operands& x) {
    Operands narrow = x;
    for (Floats* side : {&narrow.left, &narrow.right}) {
      std::transform(side->begin(), side->end(), side->begin(), rounded_to_fp16);
    }
    return in_scope(single(), kind, s, narrow);
  };
  check_products(kShapes, expected_of, on_all_paths_rounded(Fp16Arithmetic{}));
}

TEST_CASE("rounding: sums over tokens may be cut at multiples of 32") {
  constexpr Index kTokens = 96;
  const Floats left = draw(kTokens * 20, 1);
  const Floats right = draw(kTokens * 30, 2);
  for (const Bf16Arithmetic arithmetic : kArithmetics) {
    if (!has_bf16(arithmetic)) continue;
    INFO(profile_of(arithmetic));
    const RoundingScope rounding(arithmetic);
    const auto cut_at = [&](std::initializer_list<Index> cuts) {
      Floats sums(20 * 30);
      Index first = 0;
      for (const Index cut : cuts) {
        REQUIRE(
            product_tn(single(), {.left = matrix(left, kTokens, 20).row_range(first, cut - first),
                                  .right = matrix(right, kTokens, 30).row_range(first, cut - first),
                                  .output = matrix(sums, 20, 30),
                                  .start = ChainStart::output}));
        first = cut;
      }
      return sums;
    };
    CHECK(same_bits(cut_at({kTokens}), cut_at({32, 64, kTokens})));
  }
}

TEST_CASE("rounding: a scope is its thread's, ends with its block, and nests") {
  CHECK_FALSE(RoundingScope::in_use());
  {
    const RoundingScope outer(Bf16Arithmetic::widened);
    std::thread([] { CHECK_FALSE(RoundingScope::in_use()); }).join();
    {
      const RoundingScope inner(std::nullopt);
      CHECK_FALSE(RoundingScope::in_use());
    }
    CHECK(RoundingScope::in_use() == Rounding(Bf16Arithmetic::widened));
  }
  CHECK_FALSE(RoundingScope::in_use());
}

TEST_CASE("rounding: an image of fp32 weights, or an arithmetic that is not there, is refused") {
  const Floats x = draw(6 * 8, 1);
  Floats output(36);
  const auto packed = pack_weight(single(), matrix(x, 6, 8));
  REQUIRE(packed);
  Product args{.left = matrix(x, 6, 8), .right = matrix(x, 6, 8), .output = matrix(output, 6, 6)};
  {
    const RoundingScope rounding(Bf16Arithmetic::widened);
    REQUIRE(product_nt(single(), args));
    args.packed = &*packed;
    const auto refused = product_nt(single(), args);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == ErrorCode::unsupported);
  }
  REQUIRE(product_nt(single(), args));
  args.packed = nullptr;
  const CpuPath before = cpu_path();
  REQUIRE(choose_cpu_path(CpuPath::avx2));
  for (const Bf16Arithmetic arithmetic : {Bf16Arithmetic::native, Bf16Arithmetic::tiles}) {
    const RoundingScope rounding(arithmetic);
    CHECK_FALSE(product_nt(single(), args));
  }
  REQUIRE(choose_cpu_path(before));
}

namespace {

// Few tokens, which decoding would take; blocks' borders; a window, a cap and slopes.
std::vector<Case> attention_cases() {
  std::vector<Case> cases = {{shape_of(2, 2, 32), {0, 0, 3, 69, 134}},
                             {shape_of(6, 2, 40), {0, 64, 129}},
                             {shape_of(2, 1, 256), {0, 3, 70}}};
  static const float slopes[] = {0.5F, 0.25F};
  Case odd{shape_of(2, 1, 16), {0, 100}};
  odd.shape.window = 70;
  odd.shape.soft_cap = 5.0F;
  odd.shape.slopes = slopes;
  cases.push_back(odd);
  return cases;
}

Inputs rounded(Inputs in) {
  for (Floats* const x : {&in.q, &in.k, &in.v}) *x = rounded(*x);
  return in;
}

// Rounding to the nearest, of eight bits, moves a number by at most this much of itself.
constexpr double kHalfUnit = 0x1p-8;

// Of each gradient, dq, dk, dv one after the other, the sum of magnitudes of what a half unit
// moves: weights meet dout in dv; slopes meet keys in dq and queries in dk, moved themselves by
// what the output was, through delta, the same for all of a query's.
struct MovedTerms {
  explicit MovedTerms(const Inputs& in, const Floats& dout_of)
      : c(in.c),
        q(in.q_rows()),
        k(in.k_rows()),
        v(in.v_rows()),
        dout(matrix(dout_of, in.c.tokens(), in.c.wide())),
        dq(q.rows, q.columns),
        dk(k.rows, k.columns),
        dv(v.rows, v.columns) {
    for (std::size_t s = 0; s + 1 < c.offsets.size(); ++s) {
      for (Index row = c.offsets[s]; row < c.offsets[s + 1]; ++row) {
        for (Index head = 0; head < c.shape.heads; ++head) add(c.offsets[s], row, head);
      }
    }
  }

  // One query, and the keys that it sees.
  void add(Index sample, Index row, Index head) {
    const AttentionShape& shape = c.shape;
    const Index width = shape.head_width;
    const Index at = head * width;
    const Index kv_at = head / (shape.heads / shape.kv_heads) * width;
    const Index first = shape.window > 0 ? std::max(sample, row - shape.window + 1) : sample;
    struct Pair {
      double weight, along, dweight, moved;
    };
    std::vector<Pair> pairs;
    double total = 0.0;
    for (Index key = first; key <= row; ++key) {
      double score = 0.0;
      double dweight = 0.0;
      double moved = 0.0;
      for (Index d = 0; d < width; ++d) {
        score += q.at(row, at + d) * k.at(key, kv_at + d);
        dweight += dout.at(row, at + d) * v.at(key, kv_at + d);
        moved += std::abs(dout.at(row, at + d) * v.at(key, kv_at + d));
      }
      score *= static_cast<double>(shape.scale);
      double along = static_cast<double>(shape.scale);
      if (shape.soft_cap > 0.0F) {
        const double t = std::tanh(score / static_cast<double>(shape.soft_cap));
        score = static_cast<double>(shape.soft_cap) * t;
        along *= 1.0 - t * t;
      }
      if (shape.slopes != nullptr) {
        score -= static_cast<double>(shape.slopes[head]) * static_cast<double>(row - key);
      }
      pairs.push_back({std::exp(score), along, dweight, moved});
      total += pairs.back().weight;
    }
    double delta = 0.0;
    double moved = 0.0;
    for (Pair& pair : pairs) {
      pair.weight /= total;
      delta += pair.weight * pair.dweight;
      moved += pair.weight * pair.moved;
    }
    for (Index key = first; key <= row; ++key) {
      const Pair& pair = pairs[static_cast<std::size_t>(key - first)];
      const double slope = pair.weight * pair.along * (std::abs(pair.dweight - delta) + moved);
      for (Index d = 0; d < width; ++d) {
        dq.at(row, at + d) += slope * std::abs(k.at(key, kv_at + d));
        dk.at(key, kv_at + d) += slope * std::abs(q.at(row, at + d));
        dv.at(key, kv_at + d) += pair.weight * std::abs(dout.at(row, at + d));
      }
    }
  }

  std::vector<double> all() const {
    std::vector<double> terms = dq.data;
    terms.insert(terms.end(), dk.data.begin(), dk.data.end());
    terms.insert(terms.end(), dv.data.begin(), dv.data.end());
    return terms;
  }

  Case c;
  Table q, k, v, dout, dq, dk, dv;
};

}  // namespace

TEST_CASE("rounding: attention is that of rounded inputs but for its weights, on all paths") {
  Golden golden("attention forward, rounded to bf16");
  for (const Case& c : attention_cases()) {
    INFO("heads " << c.shape.heads << " width " << c.shape.head_width);
    const Inputs in(c);
    const Inputs exact = rounded(in);
    const Floats out = on_all_paths(golden, [&](const OpContext& ctx) {
      const RoundingScope scope(Bf16Arithmetic::widened);
      return forward(ctx, in).out;
    });
    const Table meaning = reference::attention(
        c.shape, Table(exact.q_rows()), Table(exact.k_rows()), Table(exact.v_rows()), c.offsets);
    // A mean of values up to 1, each of its weights rounded once; the rest is fp32's.
    const double off = largest_difference(out, meaning);
    CHECK(off <= rounding_tolerance(kHalfUnit, 1) + attention_tolerance(c));
    CHECK(off > largest_difference(forward(single(), exact).out, meaning));
    CHECK_FALSE(same_bits(out, forward(single(), exact).out));
  }
  golden.check();
}

TEST_CASE("rounding: gradients of attention are those at the rounded inputs, on all paths") {
  Golden golden("attention backward, rounded to bf16");
  for (const Case& c : attention_cases()) {
    INFO("heads " << c.shape.heads << " width " << c.shape.head_width);
    const Inputs in(c);
    const Inputs exact = rounded(in);
    const Floats dout = draw(static_cast<Index>(in.q.size()), 4);
    Forward f;
    {
      const RoundingScope scope(Bf16Arithmetic::widened);
      f = forward(single(), in);
    }
    const Floats all = on_all_paths(golden, [&](const OpContext& ctx) {
      const RoundingScope scope(Bf16Arithmetic::widened);
      return backward(ctx, in, f, dout);
    });
    const Floats near = backward(single(), exact, forward(single(), exact), rounded(dout));
    const std::vector<double> moved = MovedTerms(exact, rounded(dout)).all();
    double largest = 0.0;
    for (std::size_t i = 0; i < all.size(); ++i) {
      const double off = std::abs(static_cast<double>(all[i]) - static_cast<double>(near[i]));
      largest = test::larger(largest, off);
      // A slope is moved by delta first, and rounded then; both sides are computed in fp32.
      REQUIRE(off <= rounding_tolerance(kHalfUnit, 1, (1.0 + kHalfUnit) * moved[i]) +
                         2.0 * tolerance(c.tokens() + 2 * c.shape.head_width, moved[i]));
    }
    CHECK(largest > 0.0);
  }
  golden.check();
}

}  // namespace tutti::kernels::parity
