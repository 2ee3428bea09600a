// The gradient to the inputs of a layer with a quantised weight.
#include "kernels/ops/weights/product_quantised_nn.h"

#include <limits>

#include "kernels/ops/product.h"
#include "tests/parity/harness.h"

namespace tutti::kernels::parity {
namespace {

std::size_t size_of(Index count) { return static_cast<std::size_t>(count); }

// A weight in the format, and its values.
struct Weight {
  Weight(WeightFormat format, Index outputs, Index inputs) : values(draw(outputs * inputs, 1)) {
    auto made = quantise_weight(single(), format, matrix(values, outputs, inputs));
    REQUIRE(made);
    packed = std::move(*made);
    std::vector<std::byte> row(row_bytes(format, inputs));
    for (std::size_t o = 0; o < size_of(outputs); ++o) {
      const std::span mine = std::span(values).subspan(o * size_of(inputs), size_of(inputs));
      REQUIRE(quantise_row(format, mine, row));
      REQUIRE(dequantise_row(format, row, mine));
    }
  }
  QuantisedWeight packed;
  Floats values;
};

struct Shape {
  Index m, n, k;
};
// Outputs below a group, in several, and more than are read together.
const Shape kShapes[] = {{1, 5, 256}, {4, 16, 256}, {13, 70, 512}, {70, 300, 256}, {3, 520, 256}};

}  // namespace

TEST_CASE("product quantised nn: the bits of product_nn by the weight's values, in every format") {
  Golden golden("product quantised, nn");
  for (const WeightFormat format : kWeightFormats) {
    for (const Shape& s : kShapes) {
      INFO(to_string(format) << ' ' << s.m << " x " << s.n << " x " << s.k);
      const Weight weight(format, s.n, s.k);
      const Floats dy = draw(s.m * s.n, 2);
      const Floats held = draw(s.m * s.k, 3);
      const Floats residual = draw(s.m * s.k, 4);
      for (const bool ends : {false, true}) {
        const ChainStart start = ends ? ChainStart::output : ChainStart::zero;
        const ConstMatrix added = ends ? matrix(residual, s.m, s.k) : ConstMatrix();
        const Floats dx = on_all_paths(golden, [&](const OpContext& ctx) {
          Floats out = held;
          REQUIRE(product_quantised_nn(ctx, {.left = matrix(dy, s.m, s.n),
                                             .right = &weight.packed,
                                             .output = matrix(out, s.m, s.k),
                                             .start = start,
                                             .residual = added}));
          return out;
        });
        Floats expected = held;
        // On the CPU, whose chains a GPU has here, too.
        REQUIRE(product_nn({.pool = single().pool}, {.left = matrix(dy, s.m, s.n),
                                                     .right = matrix(weight.values, s.n, s.k),
                                                     .output = matrix(expected, s.m, s.k),
                                                     .start = start,
                                                     .residual = added}));
        REQUIRE(same_bits(dx, expected));
      }
    }
  }
  golden.check();
}

TEST_CASE("product quantised nn: a row alone, and a band of a wider matrix, have the same bits") {
  const Weight weight(WeightFormat::q4_k, 300, 256);
  const Floats dy = draw(9 * 310, 2);
  const ConstMatrix band = matrix(dy, 9, 310).column_range(10, 300);
  Floats all(9 * 256);
  REQUIRE(product_quantised_nn(
      single(), {.left = band, .right = &weight.packed, .output = matrix(all, 9, 256)}));
  for (Index r = 0; r < 9; ++r) {
    Floats one(256);
    REQUIRE(product_quantised_nn(
        single(),
        {.left = band.row_range(r, 1), .right = &weight.packed, .output = matrix(one, 1, 256)}));
    CHECK(same_bits(one, std::span(all).subspan(size_of(r * 256), 256)));
  }
}

TEST_CASE("product quantised nn: what is not finite spoils its own rows only, in every format") {
  // Row 1 has a NaN, row 2 an infinity, row 3 a sum of numbers that overflow, row 4 one that does
  // not.
  constexpr Index kRows = 6;
  constexpr Index kOutputs = 40;
  constexpr Index kInputs = 256;
  const Floats whole = draw(kRows * kOutputs, 2);
  Floats spoiled = whole;
  spoiled[kOutputs + 7] = std::numeric_limits<float>::quiet_NaN();
  spoiled[2 * kOutputs + 39] = std::numeric_limits<float>::infinity();
  for (std::size_t i = 0; i < kOutputs; ++i) spoiled[3 * kOutputs + i] = 3e38F;
  spoiled[4 * kOutputs + 9] = 1e38F;
  for (const WeightFormat format : kWeightFormats) {
    INFO(to_string(format));
    const Weight weight(format, kOutputs, kInputs);
    const auto run = [&](const Floats& dy) {
      return on_all_paths([&](const OpContext& ctx) {
        Floats out(kRows * kInputs);
        REQUIRE(product_quantised_nn(ctx, {.left = matrix(dy, kRows, kOutputs),
                                           .right = &weight.packed,
                                           .output = matrix(out, kRows, kInputs)}));
        return one_nan(std::move(out));
      });
    };
    const Floats good = run(whole);
    const Floats bad = run(spoiled);
    Floats expected(bad.size());
    REQUIRE(product_nn({.pool = single().pool}, {.left = matrix(spoiled, kRows, kOutputs),
                                                 .right = matrix(weight.values, kOutputs, kInputs),
                                                 .output = matrix(expected, kRows, kInputs)}));
    CHECK(same_bits(bad, one_nan(std::move(expected))));
    const auto row_of = [](const Floats& rows, std::size_t row) {
      return std::span(rows).subspan(row * kInputs, kInputs);
    };
    const auto is_finite = [](float value) { return std::isfinite(value); };
    for (const std::size_t row : {0U, 5U}) CHECK(same_bits(row_of(bad, row), row_of(good, row)));
    for (const float value : row_of(bad, 1)) CHECK(std::isnan(value));
    CHECK(std::ranges::none_of(row_of(bad, 2), is_finite));
    CHECK_FALSE(std::ranges::all_of(row_of(bad, 3), is_finite));
    CHECK(std::ranges::all_of(row_of(bad, 4), is_finite));
  }
}

TEST_CASE("product quantised nn: nothing to add, and what does not match") {
  const Weight weight(WeightFormat::q8_0, 40, 256);
  const Floats dy = draw(3 * 40, 2);
  Floats out(3 * 256, 7.0F);
  const auto run = [&](ConstMatrix left, const QuantisedWeight* right, Matrix output,
                       ConstMatrix residual = {}) {
    return product_quantised_nn(
        single(), {.left = left, .right = right, .output = output, .residual = residual});
  };
  const ConstMatrix left = matrix(dy, 3, 40);
  const Matrix output = matrix(out, 3, 256);
  for (const auto& refused :
       {run(left, nullptr, output), run(left.column_range(0, 39), &weight.packed, output),
        run(left, &weight.packed, output.row_range(0, 2)),
        run(left, &weight.packed, output.column_range(0, 255)),
        run(left, &weight.packed, output, matrix(dy, 3, 40))}) {
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == ErrorCode::invalid_argument);
  }
  CHECK(run(left.row_range(0, 0), &weight.packed, output.row_range(0, 0)));
  CHECK(out == Floats(out.size(), 7.0F));
  // A weight without outputs: the sum of nothing.
  const auto none = pack_rows(single(), WeightFormat::q8_0, {}, 0);
  REQUIRE(none);
  Floats nothing;
  CHECK(run(matrix(std::as_const(nothing), 3, 0), &*none, matrix(out, 3, 0)));
}

}  // namespace tutti::kernels::parity
