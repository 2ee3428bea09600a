// Products that are computed in several blocks: rows that no cache holds at once, distant rows that
// are copied, operands cut by k. Some rows of each against the same rows alone, which no block
// cuts.
#include "kernels/ops/product.h"
#include "kernels/ops/weights/quantised_weight.h"
#include "tests/parity/harness.h"

namespace tutti::kernels::parity {
namespace {

Floats rows_of(const Floats& whole, Index columns, std::span<const Index> rows) {
  Floats some;
  for (const Index row : rows) {
    const auto first = whole.begin() + static_cast<std::ptrdiff_t>(row * columns);
    some.insert(some.end(), first, first + static_cast<std::ptrdiff_t>(columns));
  }
  return some;
}

// Columns `rows` of [k][m], as a left operand of their own.
Floats columns_of(const Floats& left, Index m, std::span<const Index> rows) {
  Floats some;
  for (std::size_t at = 0; at < left.size(); at += static_cast<std::size_t>(m)) {
    for (const Index row : rows) some.push_back(left[at + static_cast<std::size_t>(row)]);
  }
  return some;
}

using Op = Result<> (*)(const OpContext&, const Product&);

constexpr Index kSome[] = {0, 95, 96, 191, 200, 255};

}  // namespace

TEST_CASE("product blocks: distant rows that are copied in tiles, the same bits on all paths") {
  const Index m = 256;  // so far apart that their lines fall together
  const Index n = 70;
  const Index k = 1100;
  const Floats left = draw(k * m, 1);
  const Floats right = draw(k * n, 2);
  const Floats before = draw(m * n, 3);
  const Floats whole = on_all_paths([&](const OpContext& ctx) {
    Floats output = before;
    REQUIRE(product_tn(ctx, {.left = matrix(left, k, m),
                             .right = matrix(right, k, n),
                             .output = matrix(output, m, n),
                             .start = ChainStart::output}));
    return output;
  });
  const auto count = static_cast<Index>(std::size(kSome));
  Floats alone = rows_of(before, n, kSome);
  const Floats some = columns_of(left, m, kSome);
  REQUIRE(product_tn(single(), {.left = matrix(some, k, count),
                                .right = matrix(right, k, n),
                                .output = matrix(alone, count, n),
                                .start = ChainStart::output}));
  CHECK(same_bits(rows_of(whole, n, kSome), alone));
}

TEST_CASE("product blocks: an operand that is cut by k and by columns") {
  const Index m = 258;
  const Index n = 2300;
  const Index k = 1030;
  const Floats left = draw(m * k, 4);
  const Floats right = draw(n * k, 5);
  for (const Op op : {Op{product_nt}, Op{product_nn}}) {
    const bool turned = op == Op{product_nt};
    const ConstMatrix by = turned ? matrix(right, n, k) : matrix(right, k, n);
    for (const int threads : {1, 2}) {
      ThreadPool pool(threads);
      Floats whole(static_cast<std::size_t>(m * n));
      REQUIRE(
          op({&pool}, {.left = matrix(left, m, k), .right = by, .output = matrix(whole, m, n)}));
      const Floats some = rows_of(left, k, kSome);
      const auto count = static_cast<Index>(std::size(kSome));
      Floats alone(static_cast<std::size_t>(count * n));
      REQUIRE(op(single(),
                 {.left = matrix(some, count, k), .right = by, .output = matrix(alone, count, n)}));
      CHECK(same_bits(rows_of(whole, n, kSome), alone));
    }
  }
}

TEST_CASE("product blocks: rows by int8 weights in parts") {
  const Index m = 256;
  const Index n = 70;
  const Index k = 32768;  // the second cache holds few such rows
  const Floats left = draw(m * k, 6);
  const Floats weight = draw(n * k, 7);
  const auto packed = quantise_weight(single(), WeightFormat::int8_channel, matrix(weight, n, k));
  REQUIRE(packed);
  const auto product = [&](const OpContext& ctx, const Floats& rows, Index count) {
    Floats output(static_cast<std::size_t>(count * n));
    REQUIRE(product_quantised(
        ctx,
        {.left = matrix(rows, count, k), .right = &*packed, .output = matrix(output, count, n)}));
    return output;
  };
  for (const int threads : {1, 2}) {
    ThreadPool pool(threads);
    const Floats whole = product({&pool}, left, m);
    for (const Index row : kSome) {
      const Index one[] = {row};
      CHECK(same_bits(rows_of(whole, n, one), product(single(), rows_of(left, k, one), 1)));
    }
  }
}

}  // namespace tutti::kernels::parity
