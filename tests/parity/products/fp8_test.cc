// Weights in eight-bit floating point: which numbers the codes are, how numbers become codes, rows
// of any length, and what makes no image.
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "kernels/ops/weights/product_quantised_nn.h"
#include "kernels/ops/weights/quantised_weight.h"
#include "tests/parity/harness.h"

namespace tutti::kernels::parity {
namespace {

constexpr WeightFormat kFormats[] = {WeightFormat::fp8_e4m3, WeightFormat::fp8_e5m2};
constexpr std::size_t kBlock = 128;

std::size_t size_of(Index count) { return static_cast<std::size_t>(count); }

// The number of a code as the formats' tables give it (Micikevicius et al. 2022, table 1).
double number_of(WeightFormat format, int code) {
  const bool wide = format == WeightFormat::fp8_e5m2;
  const int bits = wide ? 2 : 3;  // of the mantissa
  const int exponent = (code & 127) >> bits;
  const int mantissa = code & ((1 << bits) - 1);
  const double sign = code >= 128 ? -1.0 : 1.0;
  if (wide && exponent == 31) {
    return mantissa == 0 ? sign * std::numeric_limits<double>::infinity()
                         : std::numeric_limits<double>::quiet_NaN();
  }
  if (!wide && (code & 127) == 127) return std::numeric_limits<double>::quiet_NaN();
  const int bias = wide ? 15 : 7;
  const double part = mantissa / std::ldexp(1.0, bits);
  return exponent == 0 ? sign * std::ldexp(part, 1 - bias)
                       : sign * std::ldexp(1.0 + part, exponent - bias);
}

double largest_of(WeightFormat format) {
  return format == WeightFormat::fp8_e5m2 ? 57344.0 : 448.0;
}

// The nearest finite number; of two as near the one whose code is even; the largest beyond it.
double nearest_of(WeightFormat format, double value) {
  double best = 0.0;
  double distance = std::numeric_limits<double>::infinity();
  for (int code = 0; code < 128; ++code) {
    const double number = number_of(format, code);
    if (!std::isfinite(number)) continue;
    const double apart = std::abs(std::abs(value) - number);
    if (apart < distance || (apart == distance && code % 2 == 0)) {
      best = number;
      distance = apart;
    }
  }
  return std::signbit(value) ? -best : best;
}

// A row of one scale and these codes.
std::vector<std::byte> row_of(float scale, std::span<const int> codes) {
  std::vector<std::byte> row(4 + codes.size());
  std::memcpy(row.data(), &scale, 4);
  for (std::size_t i = 0; i < codes.size(); ++i) row[4 + i] = static_cast<std::byte>(codes[i]);
  return row;
}

struct Weight {
  Weight(WeightFormat format_in, Index outputs_in, Index inputs_in)
      : format(format_in), outputs(outputs_in), inputs(inputs_in) {
    Floats exact = draw(outputs * inputs, 7);
    values.resize(exact.size());
    const std::size_t row = row_bytes(format, inputs);
    for (std::size_t o = 0; o < size_of(outputs); ++o) {
      const auto mine = std::span(exact).subspan(o * size_of(inputs), size_of(inputs));
      // Blocks of many sizes, so that each must be read with its own scale.
      for (std::size_t i = 0; i < mine.size(); ++i)
        mine[i] *= static_cast<float>(1 + i / kBlock + o);
      rows.resize((o + 1) * row);
      const auto bytes = std::span(rows).subspan(o * row, row);
      REQUIRE(quantise_row(format, mine, bytes));
      REQUIRE(dequantise_row(format, bytes,
                             std::span(values).subspan(o * size_of(inputs), size_of(inputs))));
    }
  }

  WeightFormat format;
  Index outputs, inputs;
  std::vector<std::byte> rows;
  Floats values;
};

Floats product(const OpContext& ctx, const Weight& weight, const Floats& x, Index rows) {
  const auto packed = pack_rows(ctx, weight.format, weight.rows, weight.outputs);
  REQUIRE(packed);
  Floats out(size_of(rows * weight.outputs));
  REQUIRE(product_quantised(ctx, {.left = matrix(x, rows, weight.inputs),
                                  .right = &*packed,
                                  .output = matrix(out, rows, weight.outputs),
                                  .activations = Activations::exact}));
  return out;
}

Floats chains(const Floats& values, Index outputs, Index inputs, const Floats& x, Index rows) {
  Floats sums(size_of(rows * outputs));
  for (Index i = 0; i < rows * outputs; ++i) {
    for (Index k = 0; k < inputs; ++k) {
      sums[size_of(i)] = std::fma(x[size_of(i / outputs * inputs + k)],
                                  values[size_of(i % outputs * inputs + k)], sums[size_of(i)]);
    }
  }
  return sums;
}

}  // namespace

TEST_CASE("fp8: each code is the number of the format's table, times its scale") {
  for (const WeightFormat format : kFormats) {
    for (int first : {0, 128}) {
      std::vector<int> codes(kBlock);
      for (int i = 0; i < 128; ++i) codes[static_cast<std::size_t>(i)] = first + i;
      for (const float scale : {1.0F, 0.0123F, 1e-39F, 3e5F}) {
        Floats values(kBlock);
        REQUIRE(dequantise_row(format, row_of(scale, codes), values));
        for (int i = 0; i < 128; ++i) {
          const auto number = static_cast<float>(number_of(format, first + i));
          const float value = values[static_cast<std::size_t>(i)];
          INFO(to_string(format) << " code " << first + i << " scale " << scale);
          if (std::isnan(number)) {
            CHECK(std::isnan(value));
          } else {
            CHECK(std::bit_cast<std::uint32_t>(value) ==
                  std::bit_cast<std::uint32_t>(scale * number));
          }
        }
      }
    }
  }
}

TEST_CASE("fp8: numbers become the nearest code, ties to even, and the largest beyond it") {
  for (const WeightFormat format : kFormats) {
    // The block's largest makes its scale one, so codes are those of the numbers themselves.
    Floats wanted;
    for (int code = 0; code < 128; ++code) {
      const double here = number_of(format, code);
      const double next = number_of(format, code + 1);
      if (!std::isfinite(here) || !std::isfinite(next) || code == 127) continue;
      const auto half = static_cast<float>((here + next) / 2);
      for (const float value : {static_cast<float>(here), half, std::nextafter(half, 0.0F),
                                std::nextafter(half, 1e9F)}) {
        wanted.push_back(value);
        wanted.push_back(-value);
      }
    }
    const auto largest = static_cast<float>(largest_of(format));
    for (std::size_t first = 0; first < wanted.size(); first += kBlock - 1) {
      Floats values(wanted.begin() + static_cast<std::ptrdiff_t>(first),
                    wanted.begin() +
                        static_cast<std::ptrdiff_t>(std::min(first + kBlock - 1, wanted.size())));
      values.push_back(largest);
      std::vector<std::byte> row(row_bytes(format, static_cast<Index>(values.size())));
      Floats back(values.size());
      REQUIRE(quantise_row(format, values, row));
      REQUIRE(dequantise_row(format, row, back));
      for (std::size_t i = 0; i < values.size(); ++i) {
        INFO(to_string(format) << " of " << values[i]);
        CHECK(std::bit_cast<std::uint32_t>(back[i]) ==
              std::bit_cast<std::uint32_t>(
                  static_cast<float>(nearest_of(format, static_cast<double>(values[i])))));
      }
    }
    // Dividing by a rounded scale may lead beyond the largest.
    for (float top = 1.0F; top < 1.01F; top = std::nextafter(top, 2.0F) + 1e-4F) {
      const Floats values{top, -top};
      std::vector<std::byte> row(row_bytes(format, 2));
      Floats back(2);
      REQUIRE(quantise_row(format, values, row));
      REQUIRE(dequantise_row(format, row, back));
      // The scale is rounded, and its product with the code.
      const auto exact = static_cast<double>(top);
      CHECK(std::abs(static_cast<double>(back[0]) - exact) <= rounding_tolerance(kUnit, 2, exact));
      CHECK(back[1] == -back[0]);
    }
  }
}

TEST_CASE("fp8: rows of any length, each block with its scale, in products of few and many rows") {
  Golden golden("product quantised, fp8 of any length");
  for (const WeightFormat format : kFormats) {
    for (const Index inputs : {1, 31, 33, 127, 128, 129, 300, 1025}) {
      for (const Index rows : {1, 2, 3, 4, 5, 13}) {
        const Weight weight(format, 70, inputs);
        const Floats x = draw(rows * inputs, 8);
        INFO(to_string(format) << " " << rows << " rows of " << inputs);
        const Floats result = on_all_paths(
            golden, [&](const OpContext& ctx) { return product(ctx, weight, x, rows); });
        REQUIRE(same_bits(result, chains(weight.values, 70, inputs, x, rows)));
      }
    }
  }
  golden.check();
}

TEST_CASE("fp8: a weight with a neighbour's scale is told from the right one") {
  const Weight weight(WeightFormat::fp8_e4m3, 20, 256);
  const Floats x = draw(256, 8);
  Floats wrong = weight.values;
  for (std::size_t i = 0; i < 256; ++i) wrong[i] = wrong[i] * (i < 128 ? 2.0F : 0.5F);
  const Floats right = product(single(), weight, x, 1);
  REQUIRE(same_bits(right, chains(weight.values, 20, 256, x, 1)));
  CHECK_FALSE(same_bits(right, chains(wrong, 20, 256, x, 1)));
}

TEST_CASE("fp8: the gradient to the inputs, of a row whose last block is short") {
  for (const WeightFormat format : kFormats) {
    const Weight weight(format, 300, 161);
    const Floats dy = draw(5 * 300, 9);
    const Floats dx = on_all_paths([&](const OpContext& ctx) {
      const auto packed = pack_rows(ctx, format, weight.rows, 300);
      REQUIRE(packed);
      Floats out(5 * 161);
      REQUIRE(product_quantised_nn(
          ctx, {.left = matrix(dy, 5, 300), .right = &*packed, .output = matrix(out, 5, 161)}));
      return out;
    });
    Floats expected(5 * 161);
    REQUIRE(product_nn({.pool = single().pool}, {.left = matrix(dy, 5, 300),
                                                 .right = matrix(weight.values, 300, 161),
                                                 .output = matrix(expected, 5, 161)}));
    REQUIRE(same_bits(dx, expected));
  }
}

TEST_CASE("fp8: codes and scales that are no numbers make no image, and say so") {
  for (const WeightFormat format : kFormats) {
    std::vector<int> codes(40, 17);
    CHECK(pack_rows(single(), format, row_of(1.0F, codes), 1));
    CHECK(pack_rows(single(), format, row_of(0x1.fp118F, codes), 1));
    for (const float scale : {0x1p119F, std::numeric_limits<float>::infinity(),
                              std::numeric_limits<float>::quiet_NaN()}) {
      const auto packed = pack_rows(single(), format, row_of(scale, codes), 1);
      REQUIRE_FALSE(packed);
      CHECK(packed.error().code == ErrorCode::invalid_argument);
      CHECK(packed.error().message.find("scale") != std::string::npos);
    }
    codes[39] = format == WeightFormat::fp8_e5m2 ? 0x7c : 0xff;
    const auto packed = pack_rows(single(), format, row_of(1.0F, codes), 1);
    REQUIRE_FALSE(packed);
    CHECK(packed.error().message.find("no finite number") != std::string::npos);
    // No row has so many bytes.
    for (const std::size_t bytes : {1U, 4U, 133U, 135U}) {
      CHECK_FALSE(pack_rows(single(), format, std::vector<std::byte>(bytes), 1));
    }
    Floats spoiled(40, 1.0F);
    spoiled[3] = std::numeric_limits<float>::quiet_NaN();
    std::vector<std::byte> row(row_bytes(format, 40));
    CHECK_FALSE(quantise_row(format, spoiled, row));
  }
}

}  // namespace tutti::kernels::parity
