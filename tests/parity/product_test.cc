// The fp32 product against the chain rule itself: every output equals one chain of fused
// multiply-adds, bit for bit.
#include <limits>

#include "kernels/ops/product.h"
#include "kernels/ops/weights/packed_weight.h"
#include "tests/parity/harness.h"

namespace tutti::kernels::parity {
namespace {

struct Shape {
  Index m, n, k;  // rows, columns, depth
};

// Below, at and above the tiles (6 x 64, 6 x 16), and empty ones. Their bits are committed.
const Shape kShapes[] = {
    {1, 1, 1},    {0, 5, 3},      {5, 0, 3},     {5, 3, 0},      {1, 33, 17},   {2, 41, 30},
    {4, 75, 67},  {3, 16, 257},   {7, 31, 64},   {14, 32, 256},  {15, 33, 513}, {64, 65, 31},
    {65, 47, 19}, {97, 130, 300}, {129, 64, 12}, {200, 17, 520},
};

using Op = Result<> (*)(const OpContext&, const Product&);

// Operands of the three products in their own layouts, and their element (row, k) and (k, column).
struct Kind {
  const char* name;
  Op op;
  bool left_turned;   // stored [k][row]
  bool right_turned;  // stored [column][k]
};
const Kind kKinds[] = {{"nt", product_nt, false, true},
                       {"nn", product_nn, false, false},
                       {"tn", product_tn, true, false}};

struct Case {
  Case(const Kind& kind_, const Shape& shape_)
      : kind(kind_),
        shape(shape_),
        left_data(draw(shape.m * shape.k, 1)),
        right_data(draw(shape.k * shape.n, 2)),
        before(draw(shape.m * shape.n, 3)) {}

  ConstMatrix left() const {
    return kind.left_turned ? matrix(left_data, shape.k, shape.m)
                            : matrix(left_data, shape.m, shape.k);
  }
  ConstMatrix right() const {
    return kind.right_turned ? matrix(right_data, shape.n, shape.k)
                             : matrix(right_data, shape.k, shape.n);
  }
  float left_at(Index row, Index k) const {
    return kind.left_turned ? left().row(k)[row] : left().row(row)[k];
  }
  float right_at(Index k, Index column) const {
    return kind.right_turned ? right().row(column)[k] : right().row(k)[column];
  }
  Floats chains(ChainStart start) const {
    Floats result = before;
    for (Index r = 0; r < shape.m; ++r) {
      for (Index c = 0; c < shape.n; ++c) {
        float& place = result[static_cast<std::size_t>(r * shape.n + c)];
        place = reference::chain(
            start == ChainStart::zero ? 0.0F : place, shape.k,
            [&](Index k) { return left_at(r, k); }, [&](Index k) { return right_at(k, c); });
      }
    }
    return result;
  }
  Floats run(const OpContext& ctx, ChainStart start) const {
    Floats result = before;
    REQUIRE(kind.op(ctx, {.left = left(),
                          .right = right(),
                          .output = matrix(result, shape.m, shape.n),
                          .start = start}));
    return result;
  }

  Kind kind;
  Shape shape;
  Floats left_data, right_data, before;
};

}  // namespace

TEST_CASE("product: every output is one chain over ascending k, on all paths and thread counts") {
  Golden golden("product");
  for (const Kind& kind : kKinds) {
    for (const Shape& shape : kShapes) {
      const Case c(kind, shape);
      INFO(kind.name << " " << shape.m << " x " << shape.n << " x " << shape.k);
      for (const ChainStart start : {ChainStart::zero, ChainStart::output}) {
        const Floats result =
            on_all_paths(golden, [&](const OpContext& ctx) { return c.run(ctx, start); });
        REQUIRE(same_sums(result, c.chains(start)));
      }
    }
  }
  golden.check();
}

// A stretch of k (1,024), few rows (256), a left operand of even stride, a band of tiles and more;
// of many rows, panels of three vectors that end as panels, as vectors and within one, the left
// operand copied or not.
const Shape kBorders[] = {{9, 128, 1030}, {256, 70, 300}, {259, 96, 33},
                          {35, 200, 7},   {277, 80, 40},  {277, 106, 1030},
                          {512, 154, 40}, {1024, 64, 16}, {1030, 80, 20}};

TEST_CASE("product: the borders of packing are no borders of a chain") {
  for (const Kind& kind : kKinds) {
    for (const Shape& shape : kBorders) {
      const Case c(kind, shape);
      INFO(kind.name << " " << shape.m << " x " << shape.n << " x " << shape.k);
      const Floats result =
          on_all_paths([&](const OpContext& ctx) { return c.run(ctx, ChainStart::output); });
      REQUIRE(same_sums(result, c.chains(ChainStart::output)));
    }
  }
}

TEST_CASE("product: a packed image gives the bits of its weight") {
  for (const Shape& shape : {Shape{1, 64, 8},
                             {1, 131, 700},
                             {2, 70, 33},
                             {3, 15, 64},
                             {4, 64, 1},
                             {2, 131, 300},
                             {3, 70, 200},
                             {4, 131, 300},
                             {5, 64, 97},
                             {6, 150, 193},
                             {7, 200, 1030},
                             {19, 72, 2100},
                             {33, 65, 100},
                             {300, 96, 40},
                             {1, 0, 5},
                             {2, 5, 0}}) {
    const Case c(kKinds[0], shape);
    INFO(shape.m << " x " << shape.n << " x " << shape.k);
    for (const ChainStart start : {ChainStart::zero, ChainStart::output}) {
      const Floats result = on_all_paths([&](const OpContext& ctx) {
        const auto packed = pack_weight(ctx, c.right());
        REQUIRE(packed);
        Floats output = c.before;
        REQUIRE(product_nt(ctx, {.left = c.left(),
                                 .right = c.right(),
                                 .output = matrix(output, shape.m, shape.n),
                                 .start = start,
                                 .packed = &*packed}));
        return output;
      });
      REQUIRE(same_sums(result, c.chains(start)));
    }
  }
  const Case other(kKinds[0], {1, 4, 5});
  const auto packed = pack_weight(single(), matrix(other.right_data, 5, 4));
  Floats output(4);
  REQUIRE_FALSE(product_nt(single(), {.left = other.left(),
                                      .right = other.right(),
                                      .output = matrix(output, 1, 4),
                                      .packed = &*packed}));
}

TEST_CASE("product: a deep sum and a wide output cross every block border in order") {
  const Case deep(kKinds[2], {70, 40, 4500});
  REQUIRE(
      same_sums(on_all_paths([&](const OpContext& ctx) { return deep.run(ctx, ChainStart::zero); }),
                deep.chains(ChainStart::zero)));
  const Case wide(kKinds[0], {66, 9000, 240});
  REQUIRE(same_sums(wide.run(single(), ChainStart::zero), wide.chains(ChainStart::zero)));
}

TEST_CASE("product: a sum divided into calls has the bits of one call") {
  const Case whole(kKinds[2], {48, 33, 700});
  const Floats expected = whole.run(single(), ChainStart::zero);
  const Floats pieces = on_all_paths([&](const OpContext& ctx) {
    Floats result(expected.size());
    ChainStart start = ChainStart::zero;
    for (const auto& [first, count] : {std::pair<Index, Index>{0, 1}, {1, 299}, {300, 400}}) {
      REQUIRE(product_tn(ctx, {.left = whole.left().row_range(first, count),
                               .right = whole.right().row_range(first, count),
                               .output = matrix(result, 48, 33),
                               .start = start}));
      start = ChainStart::output;
    }
    return result;
  });
  REQUIRE(same_sums(pieces, expected));
}

TEST_CASE("product: a row is the same alone and among a thousand") {
  const Case many(kKinds[0], {1000, 50, 192});
  const Floats all = many.run(single(), ChainStart::zero);
  for (const Index row : {0, 13, 14, 500, 999}) {
    Floats alone(50);
    REQUIRE(product_nt(single(), {.left = many.left().row_range(row, 1),
                                  .right = many.right(),
                                  .output = matrix(alone, 1, 50)}));
    REQUIRE(same_bits(alone, std::span(all).subspan(static_cast<std::size_t>(row * 50), 50)));
  }
}

TEST_CASE("product: bands of wider matrices, bias and residual") {
  for (const Index rows : {1, 3, 20, 70}) {
    const Floats x = draw(rows * 100, 1);
    const Floats w = draw(40 * 90, 2);
    const Floats bias = draw(20, 3);
    const Floats residual = draw(rows * 20, 4);
    const ConstMatrix left = matrix(x, rows, 100).column_range(30, 60);
    const ConstMatrix right = matrix(w, 40, 90).column_range(7, 60).row_range(11, 20);
    const Floats untouched = draw(rows * 50, 5);
    const Floats result = on_all_paths([&](const OpContext& ctx) {
      Floats output = untouched;
      REQUIRE(product_nt(ctx, {.left = left,
                               .right = right,
                               .output = matrix(output, rows, 50).column_range(13, 20),
                               .bias = bias.data(),
                               .residual = matrix(residual, rows, 20)}));
      return output;
    });
    Floats expected = untouched;
    for (Index r = 0; r < rows; ++r) {
      for (Index c = 0; c < 20; ++c) {
        const float sum = reference::chain(
            0.0F, 60, [&](Index k) { return left.row(r)[k]; },
            [&](Index k) { return right.row(c)[k]; });
        const float biased = sum + bias[static_cast<std::size_t>(c)];
        expected[static_cast<std::size_t>(r * 50 + 13 + c)] =
            biased + residual[static_cast<std::size_t>(r * 20 + c)];
      }
    }
    REQUIRE(same_sums(result, expected));
  }
}

TEST_CASE("product: the comparison catches a kernel that sums in another order") {
  const Case c(kKinds[0], {20, 20, 100});
  Floats backwards(400);
  for (Index r = 0; r < 20; ++r) {
    for (Index n = 0; n < 20; ++n) {
      backwards[static_cast<std::size_t>(r * 20 + n)] = reference::chain(
          0.0F, 100, [&](Index k) { return c.left_at(r, 99 - k); },
          [&](Index k) { return c.right_at(99 - k, n); });
    }
  }
  REQUIRE_FALSE(same_bits(backwards, c.run(single(), ChainStart::zero)));
}

TEST_CASE("product: a caller in flush-to-zero mode gets the same bits") {
  Case c(kKinds[0], {80, 40, 30});
  for (float& value : c.left_data) value *= 0x1p-130F;
  const Floats expected = c.run(single(), ChainStart::zero);
  const unsigned before = _mm_getcsr();
  _mm_setcsr(before | 0x8040);
  const Floats flushed = c.run(single(), ChainStart::zero);
  _mm_setcsr(before);
  REQUIRE(same_bits(flushed, expected));
}

TEST_CASE("product: shapes that do not match are refused and nothing is written") {
  const Case c(kKinds[0], {4, 5, 6});
  for (const Kind& kind : kKinds) {
    Floats output(20, 3.0F);
    const auto refused = kind.op(single(), {.left = matrix(c.left_data, 4, 6),
                                            .right = matrix(c.right_data, 3, 10),
                                            .output = matrix(output, 4, 5)});
    REQUIRE_FALSE(refused);
    REQUIRE(refused.error().code == ErrorCode::invalid_argument);
    REQUIRE(output == Floats(20, 3.0F));
  }
}

TEST_CASE("column sums: one chain of additions over the rows, continued") {
  Golden golden("column sums");
  const Floats x = draw(77 * 21, 1);
  const Floats before = draw(21, 2);
  const Floats result = on_all_paths(golden, [&](const OpContext& ctx) {
    Floats sums = before;
    REQUIRE(column_sums(ctx, {.x = matrix(x, 77, 21), .output = sums.data()}));
    return sums;
  });
  Floats expected = before;
  for (std::size_t i = 0; i < x.size(); ++i) expected[i % 21] += x[i];
  REQUIRE(same_bits(result, expected));
  golden.check();
}

}  // namespace tutti::kernels::parity
