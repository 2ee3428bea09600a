// Groups of rows by weights of their own: the bits of one product for each group.
#include <limits>
#include <string>

#include "kernels/ops/weights/product_grouped.h"
#include "tests/parity/harness.h"

namespace tutti::kernels::parity {
namespace {

using Halves = std::vector<Bf16>;

struct Shape {
  std::vector<Index> ends;
  Index n, k;  // k in blocks of 256
};
// Empty groups before, between and behind; one group; one row a group; more rows than are taken at
// once; no rows, and no groups.
const Shape kShapes[] = {{{0, 3, 3, 4, 9, 9}, 33, 1},
                         {{5}, 70, 2},
                         {{1, 2, 3, 4}, 64, 1},
                         {{0, 0}, 5, 1},
                         {{}, 5, 1},
                         {{2, 290}, 20, 1}};
// Of those, what an emulated device is asked for.
constexpr Index kDeviceRows = 100;

std::size_t size_of(Index count) { return static_cast<std::size_t>(count); }

std::vector<Activations> meanings_of(WeightFormat format) {
  if (!has_integer_codes(format)) return {Activations::exact};
  return {Activations::exact, Activations::int8};
}

struct Case {
  Case(WeightFormat format_in, const Shape& s)
      : format(format_in),
        ends(s.ends),
        rows(s.ends.empty() ? 0 : s.ends.back()),
        n(s.n),
        k(s.k * 256),
        x(draw(rows * k, 1)),
        before(draw(rows * n, 2)),
        bias(draw(static_cast<Index>(ends.size()) * n, 3)),
        residual(draw(rows * n, 4)),
        gate(draw(rows * n, 5)) {
    for (std::size_t g = 0; g < ends.size(); ++g) values.push_back(draw(n * k, 10 + g));
  }

  std::vector<QuantisedWeight> packed(const OpContext& ctx) const {
    std::vector<QuantisedWeight> weights;
    for (const Floats& own : values) {
      auto made = quantise_weight(ctx, format, matrix(own, n, k));
      REQUIRE(made);
      weights.push_back(*std::move(made));
    }
    return weights;
  }
  static std::vector<const QuantisedWeight*> pointers(const std::vector<QuantisedWeight>& weights) {
    std::vector<const QuantisedWeight*> all;
    for (const QuantisedWeight& weight : weights) all.push_back(&weight);
    return all;
  }
  GroupedProduct args(std::span<const QuantisedWeight* const> weights, Floats& output) const {
    return {.left = matrix(x, rows, k),
            .rights = weights,
            .ends = ends,
            .output = matrix(output, rows, n)};
  }
  GroupedProduct ended(GroupedProduct product) const {
    product.start = ChainStart::output;
    product.bias = bias.data();
    product.bias_step = n;
    product.residual = matrix(residual, rows, n);
    product.activation = Activation::silu;
    product.gate = matrix(gate, rows, n);
    return product;
  }

  // The same by one product for each group that has rows.
  static void one_by_one(const OpContext& ctx, const GroupedProduct& all) {
    Index first = 0;
    for (std::size_t g = 0; g < all.ends.size(); first = all.ends[g++]) {
      const Index count = all.ends[g] - first;
      if (count == 0) continue;
      const auto band = [&](const auto& m) { return m ? m.row_range(first, count) : m; };
      REQUIRE(product_quantised(
          ctx,
          {.left = band(all.left),
           .right = all.rights[g],
           .output = band(all.output),
           .activations = all.activations,
           .start = all.start,
           .bias = all.bias != nullptr ? all.bias + static_cast<Index>(g) * all.bias_step : nullptr,
           .residual = band(all.residual),
           .activation = all.activation,
           .gate = band(all.gate),
           .narrow = band(all.narrow),
           .narrow_left = band(all.narrow_left)}));
    }
  }

  WeightFormat format;
  std::vector<Index> ends;
  Index rows, n, k;
  Floats x, before, bias, residual, gate;
  std::vector<Floats> values;
};

Floats widened(const Halves& halves) {
  Floats wide(halves.size());
  REQUIRE(from_bf16(single(), halves, wide));
  return wide;
}

}  // namespace

TEST_CASE("product grouped: the bits of one product for each group, ends included, on all paths") {
  Golden golden("product quantised, grouped");
  for (const WeightFormat format : kWeightFormats) {
    for (const Shape& shape : kShapes) {
      const Case c(format, shape);
      if (single().device != nullptr && c.rows > kDeviceRows) continue;
      for (const Activations activations : meanings_of(format)) {
        for (const bool ended : {false, true}) {
          INFO(to_string(format) << ", " << c.ends.size() << " groups of " << c.rows << " rows x "
                                 << c.n << (ended ? ", ended" : ""));
          on_all_paths(golden, [&](const OpContext& ctx) {
            const auto weights = c.packed(ctx);
            const auto pointers = Case::pointers(weights);
            Floats together = c.before;
            Floats apart = c.before;
            for (Floats* const output : {&together, &apart}) {
              GroupedProduct args = c.args(pointers, *output);
              if (ended) args = c.ended(args);
              args.activations = activations;
              if (output == &together) {
                REQUIRE(product_quantised_grouped(ctx, args));
              } else {
                Case::one_by_one(ctx, args);
              }
            }
            REQUIRE(same_bits(together, apart));
            return together;
          });
        }
      }
    }
  }
  golden.check();
}

TEST_CASE("product grouped: bf16 rows and bf16 outputs are those of each group's product") {
  if (single().device != nullptr) {
    WARN("skipped: products on a GPU take and give no bf16");
    return;
  }
  for (const WeightFormat format : kWeightFormats) {
    const Case c(format, kShapes[0]);
    Halves x(c.x.size());
    REQUIRE(to_bf16(single(), c.x, x));
    for (const Activations activations : meanings_of(format)) {
      INFO(to_string(format));
      on_all_paths([&](const OpContext& ctx) {
        const auto weights = c.packed(ctx);
        const auto pointers = Case::pointers(weights);
        Halves together(c.before.size());
        Halves apart(c.before.size());
        for (Halves* const output : {&together, &apart}) {
          Floats none;
          GroupedProduct args = c.ended(c.args(pointers, none));
          args.start = ChainStart::zero;
          args.output = {};
          args.narrow = {output->data(), c.rows, c.n};
          args.left = {};
          args.narrow_left = {x.data(), c.rows, c.k};
          args.activations = activations;
          if (output == &together) {
            REQUIRE(product_quantised_grouped(ctx, args));
          } else {
            Case::one_by_one(ctx, args);
          }
        }
        REQUIRE(together == apart);
        return widened(together);
      });
    }
  }
}

TEST_CASE("product grouped: groups are cut where their rows' codes are more than a cache holds") {
  if (single().device != nullptr) return;  // it has no such cache
  const Case c(WeightFormat::q8_0, {{50, 163}, 20, 32});
  const Floats together = on_all_paths([&](const OpContext& ctx) {
    const auto weights = c.packed(ctx);
    const auto pointers = Case::pointers(weights);
    Floats output(c.before.size());
    REQUIRE(product_quantised_grouped(ctx, c.args(pointers, output)));
    return output;
  });
  const auto weights = c.packed(single());
  const auto pointers = Case::pointers(weights);
  Floats apart(c.before.size());
  for (Index row = 0; row < c.rows; ++row) {
    REQUIRE(product_quantised(single(), {.left = matrix(c.x, c.rows, c.k).row_range(row, 1),
                                         .right = pointers[row < 50 ? 0 : 1],
                                         .output = matrix(apart, c.rows, c.n).row_range(row, 1)}));
  }
  REQUIRE(same_bits(together, apart));
}

TEST_CASE("product grouped: without inputs outputs are their ends alone") {
  if (single().device != nullptr) return;  // it refuses weights without inputs
  const Floats scales = draw(6, 1);
  const auto weight =
      pack_rows(single(), WeightFormat::int8_channel, std::as_bytes(std::span(scales)), 6);
  REQUIRE(weight);
  const QuantisedWeight* const pointers[] = {&*weight, &*weight};
  const Index ends[] = {1, 3};
  const Floats bias = draw(12, 2);
  Floats output(18, 7.0F);
  REQUIRE(product_quantised_grouped(single(), {.left = ConstMatrix(scales.data(), 3, 0),
                                               .rights = pointers,
                                               .ends = ends,
                                               .output = matrix(output, 3, 6),
                                               .bias = bias.data(),
                                               .bias_step = 6}));
  for (std::size_t i = 0; i < 18; ++i) REQUIRE(output[i] == bias[(i < 6 ? 0 : 6) + i % 6]);
}

TEST_CASE("product grouped: what is not finite stays in its row, in every format") {
  for (const WeightFormat format : kWeightFormats) {
    const Case whole(format, {{2, 2, 6}, 20, 1});
    Case c = whole;
    c.x[size_of(1 * c.k) + 9] = 1e38F;  // times a code and a minimum, each below two
    c.x[size_of(3 * c.k) + 9] = std::numeric_limits<float>::infinity();
    c.x[size_of(5 * c.k) + 255] = std::numeric_limits<float>::quiet_NaN();
    for (const Activations activations : meanings_of(format)) {
      INFO(to_string(format) << (activations == Activations::int8 ? ", int8" : ", exact"));
      const auto run = [&](const Case& of) {
        return on_all_paths([&](const OpContext& ctx) {
          const auto weights = of.packed(ctx);
          const auto pointers = Case::pointers(weights);
          Floats output(of.before.size());
          GroupedProduct args = of.args(pointers, output);
          args.activations = activations;
          REQUIRE(product_quantised_grouped(ctx, args));
          return one_nan(std::move(output));
        });
      };
      const Floats good = run(whole);
      const Floats bad = run(c);
      for (std::size_t i = 0; i < bad.size(); ++i) {
        const std::size_t row = i / 20;
        INFO("row " << row << ", column " << i % 20);
        CHECK(std::isfinite(bad[i]) == (row != 3 && row != 5));
        // A cell's scale is no number where one of its inputs is none.
        if (row == 5 || (row == 3 && activations == Activations::int8)) CHECK(std::isnan(bad[i]));
        if (row == 0 || row == 2 || row == 4) CHECK(bad[i] == good[i]);
      }
    }
  }
}

TEST_CASE("product grouped: the comparison catches rows that meet another group's weight") {
  const Case c(WeightFormat::q4_0, kShapes[0]);
  const auto weights = c.packed(single());
  auto pointers = Case::pointers(weights);
  Floats right(c.before.size());
  REQUIRE(product_quantised_grouped(single(), c.args(pointers, right)));
  // The end of a group one row too far: that row alone differs.
  std::vector<Index> ends = c.ends;
  ends[3] = 5;
  Floats wrong(c.before.size());
  GroupedProduct args = c.args(pointers, wrong);
  args.ends = ends;
  REQUIRE(product_quantised_grouped(single(), args));
  const std::size_t row = 4 * size_of(c.n);
  REQUIRE(same_bits(std::span(right).first(row), std::span(wrong).first(row)));
  REQUIRE_FALSE(same_bits(right, wrong));
}

TEST_CASE("product grouped: groups that do not match are refused and nothing is written") {
  const Case c(WeightFormat::q8_0, kShapes[0]);
  const auto weights = c.packed(single());
  const auto pointers = Case::pointers(weights);
  Floats output(c.before.size(), 7.0F);
  const auto refused = [&](auto change) {
    auto own = pointers;
    auto ends = c.ends;
    GroupedProduct args = c.args(own, output);
    args.ends = ends;
    change(args, own, ends);
    const auto result = product_quantised_grouped(single(), args);
    return !result && result.error().code == ErrorCode::invalid_argument;
  };
  using Weights = std::vector<const QuantisedWeight*>;
  using Ends = std::vector<Index>;
  const auto other = quantise_weight(single(), WeightFormat::q4_0, matrix(c.values[0], c.n, c.k));
  const auto narrower =
      quantise_weight(single(), WeightFormat::q8_0, matrix(c.values[0], c.n - 1, c.k));
  REQUIRE(other);
  REQUIRE(narrower);
  CHECK(refused([](GroupedProduct&, Weights& own, Ends&) { own[2] = nullptr; }));
  CHECK(refused([&](GroupedProduct&, Weights& own, Ends&) { own[2] = &*other; }));
  CHECK(refused([&](GroupedProduct&, Weights& own, Ends&) { own[5] = &*narrower; }));
  CHECK(refused([](GroupedProduct&, Weights&, Ends& ends) { ends[1] = 4; }));
  CHECK(refused([](GroupedProduct&, Weights&, Ends& ends) { ends[0] = -1; }));
  CHECK(refused([](GroupedProduct&, Weights&, Ends& ends) { ends[5] = 8; }));
  CHECK(
      refused([](GroupedProduct& p, Weights&, Ends& ends) { p.ends = std::span(ends).first(5); }));
  CHECK(refused([](GroupedProduct& p, Weights&, Ends&) { p.output.columns -= 1; }));
  CHECK(output == Floats(output.size(), 7.0F));

  const auto nf4 = quantise_weight(single(), WeightFormat::nf4, matrix(c.values[0], c.n, c.k));
  REQUIRE(nf4);
  const QuantisedWeight* const one[] = {&*nf4};
  const Index end[] = {c.rows};
  CHECK_FALSE(product_quantised_grouped(single(), {.left = matrix(c.x, c.rows, c.k),
                                                   .rights = one,
                                                   .ends = end,
                                                   .output = matrix(output, c.rows, c.n)}));
}

}  // namespace tutti::kernels::parity
