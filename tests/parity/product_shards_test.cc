// The weight gradient with the tree of shards inside, against one product per shard and additions.
#include "kernels/ops/add.h"
#include "kernels/ops/product.h"
#include "tests/parity/harness.h"

namespace tutti::kernels::parity {
namespace {

using Ends = std::vector<Index>;

struct Case {
  Index rows, columns;
  Ends ends;
};
const Case kCases[] = {
    {5, 7, {3}},
    {6, 64, {2, 2}},
    {100, 70, {10, 30, 30, 61}},
    {256, 48, {0, 5, 5, 5, 40, 41, 41, 41}},
    {97, 130, {1100, 1100, 1101, 2300}},
    {3, 5, {0, 0}},
    {20, 300, {7, 14, 21, 28, 35, 42, 49, 56, 63, 70, 77, 84, 91, 98, 105, 112}},
};

// The tree by its definition; empty where no shard of it has tokens.
Floats tree_of(const Case& c, ConstMatrix left, ConstMatrix right, std::size_t first,
               std::size_t count) {
  if (count == 1) {
    const Index begin = first == 0 ? 0 : c.ends[first - 1];
    const Index tokens = c.ends[first] - begin;
    if (tokens == 0) return {};
    Floats sum(static_cast<std::size_t>(c.rows * c.columns));
    REQUIRE(product_tn(single(), {.left = left.row_range(begin, tokens),
                                  .right = right.row_range(begin, tokens),
                                  .output = matrix(sum, c.rows, c.columns)}));
    return sum;
  }
  Floats low = tree_of(c, left, right, first, count / 2);
  Floats high = tree_of(c, left, right, first + count / 2, count / 2);
  if (low.empty()) return high;
  for (std::size_t i = 0; i < high.size(); ++i) low[i] += high[i];
  return low;
}

}  // namespace

TEST_CASE("product by shards: the bits of a product per shard and the tree's additions") {
  Golden golden("product by shards");
  for (const Case& c : kCases) {
    const Index tokens = c.ends.back();
    const Floats left = draw(tokens * c.rows, 1);
    const Floats right = draw(tokens * c.columns, 2);
    const Floats before = draw(c.rows * c.columns, 3);
    INFO(c.rows << " x " << c.columns << ", " << c.ends.size() << " shards of " << tokens);
    Floats tree = tree_of(c, matrix(left, tokens, c.rows), matrix(right, tokens, c.columns), 0,
                          c.ends.size());
    tree.resize(before.size());
    for (const ChainStart start : {ChainStart::zero, ChainStart::output}) {
      const Floats result = on_all_paths(golden, [&](const OpContext& ctx) {
        Floats output = before;
        REQUIRE(product_tn_shards(ctx, {.left = matrix(left, tokens, c.rows),
                                        .right = matrix(right, tokens, c.columns),
                                        .output = matrix(output, c.rows, c.columns),
                                        .ends = c.ends,
                                        .start = start}));
        return output;
      });
      Floats expected = start == ChainStart::zero ? Floats(before.size()) : before;
      for (std::size_t i = 0; i < expected.size(); ++i) {
        expected[i] = start == ChainStart::zero ? tree[i] : expected[i] + tree[i];
      }
      REQUIRE(same_bits(result, expected));
    }
  }
  golden.check();
}

TEST_CASE("product by shards: another tree gives other bits, and a wrong one is refused") {
  const Floats left = draw(64 * 30, 1);
  const Floats right = draw(64 * 30, 2);
  const auto run = [&](Ends ends) {
    Floats output(30 * 30);
    const auto done = product_tn_shards(single(), {.left = matrix(left, 64, 30),
                                                   .right = matrix(right, 64, 30),
                                                   .output = matrix(output, 30, 30),
                                                   .ends = ends});
    return done ? output : Floats{};
  };
  REQUIRE_FALSE(run({64}).empty());
  CHECK_FALSE(same_bits(run({64}), run({32, 64})));
  CHECK_FALSE(same_bits(run({16, 32, 48, 64}), run({32, 64})));
  CHECK(run({16, 32, 64}).empty());
  CHECK(run({32, 63}).empty());
  CHECK(run({40, 32, 64, 64}).empty());
  CHECK(run({}).empty());
}

}  // namespace tutti::kernels::parity
