// int8 by int8: exact sums against integers of 64 bits, and the bits of product_quantised.
#include "kernels/ops/weights/product_int8.h"

#include <algorithm>
#include <limits>

#include "tests/parity/harness.h"

namespace tutti::kernels::parity {
namespace {

using Codes = std::vector<std::int8_t>;

struct Shape {
  Index m, n, k;
};
const Shape kShapes[] = {{1, 1, 1},    {1, 64, 32},  {3, 17, 33},   {4, 70, 100},
                         {7, 130, 31}, {65, 64, 96}, {2, 200, 1024}};

std::size_t size_of(Index count) { return static_cast<std::size_t>(count); }

// Codes over the whole range, its ends often among them, so that sums are as large as they can be.
Codes codes_of(Index count, std::uint64_t stream) {
  Codes codes;
  for (const float u : draw(count, stream)) {
    codes.push_back(static_cast<std::int8_t>(std::clamp(u * 160.0F, -127.0F, 127.0F)));
  }
  return codes;
}

struct Case {
  Shape shape;
  Codes x = codes_of(shape.m * shape.k, 1);
  Floats scales = draw(shape.m, 2);
  Codes w = codes_of(shape.n * shape.k, 3);
  Floats weight_scales = draw(shape.n, 4);

  QuantisedWeight packed(const OpContext& ctx) const {
    std::vector<std::byte> rows;
    for (Index n = 0; n < shape.n; ++n) {
      const auto scale = std::as_bytes(std::span(weight_scales).subspan(size_of(n), 1));
      const auto row = std::as_bytes(std::span(w).subspan(size_of(n * shape.k), size_of(shape.k)));
      rows.insert(rows.end(), scale.begin(), scale.end());
      rows.insert(rows.end(), row.begin(), row.end());
    }
    auto made = pack_rows(ctx, WeightFormat::int8_channel, rows, shape.n);
    REQUIRE(made);
    return *std::move(made);
  }
  std::int64_t sum(Index m, Index n) const {
    std::int64_t total = 0;
    for (Index k = 0; k < shape.k; ++k) {
      total += std::int64_t{x[size_of(m * shape.k + k)]} * w[size_of(n * shape.k + k)];
    }
    return total;
  }
};

}  // namespace

TEST_CASE("int8 product: every output is its exact sum, scaled once, on all paths") {
  Golden golden("product int8");
  for (const Shape& shape : kShapes) {
    INFO(shape.m << " x " << shape.n << " x " << shape.k);
    const Case c{shape};
    const Floats begin = draw(shape.m * shape.n, 5);
    const Floats result = on_all_paths(golden, [&](const OpContext& ctx) {
      const QuantisedWeight packed = c.packed(ctx);
      Floats output = begin;
      REQUIRE(product_int8(ctx, {.codes = {c.x.data(), shape.m, shape.k},
                                 .scales = matrix(c.scales, shape.m, 1),
                                 .right = &packed,
                                 .output = matrix(output, shape.m, shape.n),
                                 .start = ChainStart::output}));
      return output;
    });
    for (Index m = 0; m < shape.m; ++m) {
      for (Index n = 0; n < shape.n; ++n) {
        const float scale = c.weight_scales[size_of(n)] * c.scales[size_of(m)];
        const std::size_t at = size_of(m * shape.n + n);
        REQUIRE(result[at] == std::fma(static_cast<float>(c.sum(m, n)), scale, begin[at]));
      }
    }
  }
  golden.check();
}

TEST_CASE(
    "int8 product: tiles of rows, what is left of them, and inputs in pieces, are exact too") {
  // Past what the kernels take at once: 16 and 32 rows by two groups, 128 rows, 512 inputs; an odd
  // number of cells; rows in parts of 128 by AMX and fewer by others.
  for (const Shape& shape : {Shape{16, 16, 64}, Shape{33, 70, 160}, Shape{48, 33, 513},
                             Shape{147, 130, 1120}, Shape{290, 65, 96}, Shape{150, 17, 8192}}) {
    INFO(shape.m << " x " << shape.n << " x " << shape.k);
    const Case c{shape};
    const Floats result = on_all_paths([&](const OpContext& ctx) {
      const QuantisedWeight packed = c.packed(ctx);
      Floats output(size_of(shape.m * shape.n), 7.0F);
      REQUIRE(product_int8(ctx, {.codes = {c.x.data(), shape.m, shape.k},
                                 .scales = matrix(c.scales, shape.m, 1),
                                 .right = &packed,
                                 .output = matrix(output, shape.m, shape.n)}));
      return output;
    });
    for (Index m = 0; m < shape.m; ++m) {
      for (Index n = 0; n < shape.n; ++n) {
        const float scale = c.weight_scales[size_of(n)] * c.scales[size_of(m)];
        REQUIRE(result[size_of(m * shape.n + n)] ==
                std::fma(static_cast<float>(c.sum(m, n)), scale, 0.0F));
      }
    }
  }
}

// Of as many inputs as are allowed, +-2^31 but for what 127 lacks of 128; in kernels that take
// codes as numbers from 0 to 255, sums pass 2^31 on their way.
TEST_CASE("int8 product: the largest sums are exact") {
  constexpr Index kInputs = 131072;
  Case c{{2, 3, kInputs}};
  for (Codes* const codes : {&c.x, &c.w}) {
    std::fill(codes->begin(), codes->end(), std::int8_t{127});
    std::fill_n(codes->begin(), kInputs, std::int8_t{-127});
  }
  const QuantisedWeight packed = c.packed(single());
  const Floats result = on_all_paths([&](const OpContext& ctx) {
    Floats output(6);
    REQUIRE(product_int8(ctx, {.codes = {c.x.data(), 2, kInputs},
                               .scales = matrix(c.scales, 2, 1),
                               .right = &packed,
                               .output = matrix(output, 2, 3)}));
    return output;
  });
  for (Index m = 0; m < 2; ++m) {
    for (Index n = 0; n < 3; ++n) {
      const float scale = c.weight_scales[size_of(n)] * c.scales[size_of(m)];
      REQUIRE(result[size_of(m * 3 + n)] == std::fma(static_cast<float>(c.sum(m, n)), scale, 0.0F));
    }
  }
}

TEST_CASE("int8 product: more inputs than sums hold are refused") {
  const Case c{{1, 1, 131073}};
  const QuantisedWeight packed = c.packed(single());
  float output = 7.0F;
  const auto refused = product_int8(single(), {.codes = {c.x.data(), 1, 131073},
                                               .scales = matrix(c.scales, 1, 1),
                                               .right = &packed,
                                               .output = {&output, 1, 1}});
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == ErrorCode::invalid_argument);
  const Floats x(131073, 1.0F);
  CHECK_FALSE(product_quantised(
      single(), {.left = matrix(x, 1, 131073), .right = &packed, .output = {&output, 1, 1}}));
  CHECK(output == 7.0F);
}

TEST_CASE("int8 product: rows rounded before give the bits of the product that rounds them") {
  const Index m = 9;
  const Index n = 70;
  const Index k = 200;
  Floats x = draw(m * k, 6);
  for (Index i = 0; i < k; ++i) x[size_of(3 * k + i)] = 0.0F;  // a row of zeros
  x[size_of(5 * k + 7)] = std::numeric_limits<float>::infinity();
  x[size_of(6 * k + 1)] = 1e-41F;
  const Floats weight = draw(n * k, 7);
  const Floats bias = draw(n, 8);
  std::vector<Bf16> halves(size_of(m * n));
  const Floats both = on_all_paths([&](const OpContext& ctx) {
    const auto packed = quantise_weight(ctx, WeightFormat::int8_channel, matrix(weight, n, k));
    REQUIRE(packed);
    // Bands of wider codes.
    Codes codes(size_of(m * (k + 5)), 1);
    Floats scales(size_of(m));
    REQUIRE(to_int8_rows(ctx, {.x = matrix(x, m, k),
                               .codes = {codes.data(), m, k, k + 5},
                               .scales = matrix(scales, m, 1)}));
    Floats output(size_of(2 * m * n));
    const Int8Product args{.codes = {codes.data(), m, k, k + 5},
                           .scales = matrix(std::as_const(scales), m, 1),
                           .right = &*packed,
                           .output = {output.data(), m, n},
                           .bias = bias.data(),
                           .activation = Activation::silu};
    REQUIRE(product_int8(ctx, args));
    REQUIRE(product_quantised(ctx, {.left = matrix(x, m, k),
                                    .right = &*packed,
                                    .output = {output.data() + m * n, m, n},
                                    .bias = bias.data(),
                                    .activation = Activation::silu}));
    Int8Product narrow = args;
    narrow.output = {};
    narrow.narrow = {halves.data(), m, n};
    REQUIRE(product_int8(ctx, narrow));
    std::vector<Bf16> rounded(halves.size());
    REQUIRE(to_bf16(ctx, std::span(output).first(halves.size()), rounded));
    REQUIRE(rounded == halves);
    return output;
  });
  REQUIRE(same_bits(Floats(both.begin(), both.begin() + m * n),
                    Floats(both.begin() + m * n, both.end())));
}

TEST_CASE("int8 product: by each format, rows rounded by cell give the product that rounds them") {
  Golden golden("product int8, by cells");
  constexpr Index n = 70;
  constexpr Index k = 512;
  for (const WeightFormat format : kWeightFormats) {
    if (!has_integer_codes(format) || format == WeightFormat::int8_channel) continue;
    const Floats weight = draw(n * k, 7);
    for (const Index m : {1, 3, 9, 67}) {
      INFO(to_string(format) << " rows " << m);
      Floats x = draw(m * k, 6);
      for (Index i = 0; i < k / 2; ++i) x[size_of(i)] *= 1e30F;
      const Floats both = on_all_paths(golden, [&](const OpContext& ctx) {
        const auto packed = quantise_weight(ctx, format, matrix(weight, n, k));
        REQUIRE(packed);
        Codes codes(x.size());
        Floats scales(size_of(m * k / 32));
        REQUIRE(to_int8_rows(ctx, {.x = matrix(x, m, k),
                                   .codes = {codes.data(), m, k},
                                   .scales = matrix(scales, m, k / 32)}));
        Floats output = draw(2 * m * n, 8);
        std::copy_n(output.begin(), m * n, output.begin() + m * n);
        REQUIRE(product_int8(ctx, {.codes = {codes.data(), m, k},
                                   .scales = matrix(std::as_const(scales), m, k / 32),
                                   .right = &*packed,
                                   .output = {output.data(), m, n},
                                   .start = ChainStart::output}));
        REQUIRE(product_quantised(ctx, {.left = matrix(x, m, k),
                                        .right = &*packed,
                                        .output = {output.data() + m * n, m, n},
                                        .start = ChainStart::output}));
        return output;
      });
      REQUIRE(
          same_bits(std::span(both).first(size_of(m * n)), std::span(both).last(size_of(m * n))));
    }
  }
  golden.check();
}

TEST_CASE("int8 product: one scale of a row is that of each of its cells, whatever the format") {
  constexpr Index m = 5;
  constexpr Index n = 33;
  constexpr Index k = 256;
  const Codes codes = codes_of(m * k, 1);
  const Floats scales = draw(m, 2);
  Floats of_cells;
  for (const float scale : scales) of_cells.insert(of_cells.end(), k / 32, scale);
  for (const WeightFormat format : kWeightFormats) {
    if (!has_integer_codes(format)) continue;
    INFO(to_string(format));
    const Floats weight = draw(n * k, 3);
    const auto product = [&](const OpContext& ctx, ConstMatrix by) {
      const auto packed = quantise_weight(ctx, format, matrix(weight, n, k));
      REQUIRE(packed);
      Floats output(size_of(m * n));
      const auto done = product_int8(ctx, {.codes = {codes.data(), m, k},
                                           .scales = by,
                                           .right = &*packed,
                                           .output = matrix(output, m, n)});
      REQUIRE(done.ok() == (by.columns == 1 || format != WeightFormat::int8_channel));
      return output;
    };
    const Floats by_row =
        on_all_paths([&](const OpContext& ctx) { return product(ctx, matrix(scales, m, 1)); });
    const Floats by_cell = product(single(), matrix(std::as_const(of_cells), m, k / 32));
    REQUIRE(same_bits(by_row, by_cell) == (format != WeightFormat::int8_channel));
  }
}

TEST_CASE("int8 product: by values that are no codes, the exact product of scale times code") {
  Golden golden("product int8, by values");
  constexpr Index n = 33;
  constexpr Index k = 256;
  const Floats weight = draw(n * k, 3);
  const Floats bias = draw(n, 4);
  for (const WeightFormat format : kWeightFormats) {
    if (has_integer_codes(format)) continue;
    for (const Index m : {1, 3, 270}) {
      for (const Index cells : {Index{1}, k / 32}) {
        INFO(to_string(format) << " rows " << m << " cells " << cells);
        const Codes codes = codes_of(m * k, 1);
        const Floats scales = draw(m * cells, 2);
        const Floats residual = draw(m * n, 5);
        Floats values;
        for (std::size_t i = 0; i < codes.size(); ++i) {
          values.push_back(scales[i / size_of(k / cells)] * static_cast<float>(codes[i]));
        }
        const auto packed = quantise_weight(single(), format, matrix(weight, n, k));
        REQUIRE(packed);
        Floats exact = draw(m * n, 6);
        REQUIRE(product_quantised(single(), {.left = matrix(values, m, k),
                                             .right = &*packed,
                                             .output = matrix(exact, m, n),
                                             .activations = Activations::exact,
                                             .start = ChainStart::output,
                                             .bias = bias.data(),
                                             .residual = matrix(residual, m, n)}));
        REQUIRE(same_bits(on_all_paths(golden,
                                       [&](const OpContext& ctx) {
                                         Floats output = draw(m * n, 6);
                                         REQUIRE(product_int8(
                                             ctx, {.codes = {codes.data(), m, k},
                                                   .scales = matrix(scales, m, cells),
                                                   .right = &*packed,
                                                   .output = matrix(output, m, n),
                                                   .start = ChainStart::output,
                                                   .bias = bias.data(),
                                                   .residual = matrix(residual, m, n)}));
                                         return output;
                                       }),
                          exact));
      }
    }
  }
  golden.check();
}

TEST_CASE("int8 product: without inputs outputs are their start; what does not fit is refused") {
  const Case c{{2, 3, 40}};
  const QuantisedWeight packed = c.packed(single());
  Floats output(6, 7.0F);
  const Int8Product args{.codes = {c.x.data(), 2, 40},
                         .scales = matrix(c.scales, 2, 1),
                         .right = &packed,
                         .output = matrix(output, 2, 3)};
  const auto refused = [&](auto change) {
    Int8Product wrong = args;
    change(wrong);
    const auto result = product_int8(single(), wrong);
    return !result && result.error().code == ErrorCode::invalid_argument;
  };
  CHECK(refused([](Int8Product& p) { p.codes.columns = 39; }));
  CHECK(refused([](Int8Product& p) { p.scales = {}; }));
  CHECK(refused([](Int8Product& p) { p.right = nullptr; }));
  CHECK(refused([](Int8Product& p) { p.output.rows = 1; }));
  CHECK(refused([&](Int8Product& p) { p.scales = matrix(c.scales, 1, 2); }));
  Codes lowest = c.x;
  lowest[41] = std::numeric_limits<std::int8_t>::min();
  CHECK(refused([&](Int8Product& p) { p.codes = {lowest.data(), 2, 40}; }));
  const auto by_values = quantise_weight(single(), WeightFormat::bf16, matrix(draw(120, 1), 3, 40));
  REQUIRE(by_values);
  CHECK(refused([&](Int8Product& p) {
    p.codes = {lowest.data(), 2, 40};
    p.right = &*by_values;
  }));
  CHECK(output == Floats(6, 7.0F));

  Codes codes(80);
  CHECK_FALSE(to_int8_rows(
      single(), {.x = matrix(output, 2, 3), .codes = {codes.data(), 2, 4}, .scales = {}}));

  const auto none =
      pack_rows(single(), WeightFormat::int8_channel, std::as_bytes(std::span(c.weight_scales)), 3);
  REQUIRE(none);
  REQUIRE(product_int8(single(), {.codes = {c.x.data(), 2, 0},
                                  .scales = matrix(c.scales, 2, 1),
                                  .right = &*none,
                                  .output = matrix(output, 2, 3)}));
  CHECK(output == Floats(6, 0.0F));
}

}  // namespace tutti::kernels::parity
