// Codes with zeros of their own, as GPTQ and AWQ files have them: rows put together from codes,
// groups of inputs in place and anywhere, products on all paths.
#include <limits>
#include <string>

#include "kernels/ops/weights/product_quantised_nn.h"
#include "kernels/ops/weights/quantised_weight.h"
#include "tests/parity/harness.h"

namespace tutti::kernels::parity {
namespace {

constexpr WeightFormat kFormats[] = {WeightFormat::int4_zero, WeightFormat::int8_zero,
                                     WeightFormat::int4_order, WeightFormat::int8_order};

std::size_t size_of(Index count) { return static_cast<std::size_t>(count); }

unsigned most_of(WeightFormat format) {
  return format == WeightFormat::int4_zero || format == WeightFormat::int4_order ? 15U : 255U;
}

// Codes, scales and zeros of each output, and where each input finds its own; the values by the
// formula alone.
struct Weight {
  Weight(WeightFormat format_in, Index outputs_in, Index inputs_in, std::size_t entries)
      : format(format_in), outputs(outputs_in), inputs(inputs_in) {
    const auto count = size_of(inputs);
    const unsigned most = most_of(format);
    const std::size_t row = row_bytes(format, inputs);
    rows.resize(row * size_of(outputs));
    Numbers random(outputs, inputs, static_cast<Index>(format));
    for (std::size_t k = 0; k < count; ++k) {
      entry_of.push_back(is_ordered(format) ? static_cast<std::uint16_t>(random.below(entries))
                                            : static_cast<std::uint16_t>(k / 32));
    }
    for (std::size_t o = 0; o < size_of(outputs); ++o) {
      std::vector<std::uint8_t> codes, zeros;
      Floats scales;
      for (std::size_t k = 0; k < count; ++k) {
        codes.push_back(static_cast<std::uint8_t>(random.below(most + 1)));
      }
      for (std::size_t e = 0; e < (is_ordered(format) ? entries : count / 32); ++e) {
        zeros.push_back(static_cast<std::uint8_t>(random.below(most + 1)));
        // Halves, among them one below the normal numbers, and one of the other sign.
        scales.push_back(e == 0 ? -0x1.8p-20F
                                : static_cast<float>(1 + random.below(2047)) * 0x1p-16F);
      }
      for (std::size_t k = 0; k < count; ++k) {
        values.push_back(scales[entry_of[k]] *
                         static_cast<float>(static_cast<int>(codes[k]) - zeros[entry_of[k]]));
      }
      REQUIRE(join_row(format,
                       {.codes = codes,
                        .scales = scales,
                        .zeros = zeros,
                        .entries = is_ordered(format) ? std::span<const std::uint16_t>(entry_of)
                                                      : std::span<const std::uint16_t>()},
                       std::span(rows).subspan(o * row, row)));
    }
  }
  QuantisedWeight packed(const OpContext& ctx) const {
    auto made = pack_rows(ctx, format, rows, outputs);
    REQUIRE(made);
    return std::move(*made);
  }

  // Numbers below a bound, from the library's own draws.
  struct Numbers {
    Numbers(Index a, Index b, Index c)
        : numbers(draw(1 << 16, static_cast<std::uint64_t>(a * 7919 + b * 31 + c))) {}
    std::uint32_t below(std::size_t bound) {
      const float number = (numbers[at++ % numbers.size()] + 1.0F) / 2.0F;
      return static_cast<std::uint32_t>(number * static_cast<float>(bound));
    }
    Floats numbers;
    std::size_t at = 0;
  };

  WeightFormat format;
  Index outputs, inputs;
  std::vector<std::byte> rows;
  std::vector<std::uint16_t> entry_of;
  Floats values;
};

Floats product(const OpContext& ctx, const Weight& weight, const Floats& x, Index rows) {
  const QuantisedWeight packed = weight.packed(ctx);
  Floats out(size_of(rows * weight.outputs));
  REQUIRE(product_quantised(ctx, {.left = matrix(x, rows, weight.inputs),
                                  .right = &packed,
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

TEST_CASE("zeros: a row's values are each code less its zero, times its scale") {
  for (const WeightFormat format : kFormats) {
    for (const Index inputs : {32, 160, 1024}) {
      INFO(to_string(format) << " of " << inputs);
      const Weight weight(format, 3, inputs, std::min<std::size_t>(5, size_of(inputs) / 32));
      const std::size_t row = row_bytes(format, inputs);
      Floats read(weight.values.size());
      for (std::size_t o = 0; o < 3; ++o) {
        REQUIRE(dequantise_row(format, std::span(weight.rows).subspan(o * row, row),
                               std::span(read).subspan(o * size_of(inputs), size_of(inputs))));
      }
      REQUIRE(same_bits(read, weight.values));
    }
  }
}

TEST_CASE("zeros: products of few and many rows are the chains of the values, on all paths") {
  Golden golden("product quantised, zeros by group");
  for (const WeightFormat format : kFormats) {
    for (const Index inputs : {32, 288, 512}) {
      const Weight weight(format, 70, inputs, size_of(inputs) / 32);
      for (const Index rows : {1, 2, 3, 4, 5, 13}) {
        INFO(to_string(format) << " " << rows << " rows of " << inputs);
        const Floats x = draw(rows * inputs, 8);
        const Floats result = on_all_paths(
            golden, [&](const OpContext& ctx) { return product(ctx, weight, x, rows); });
        REQUIRE(same_bits(result, chains(weight.values, 70, inputs, x, rows)));
      }
    }
  }
  golden.check();
}

TEST_CASE("zeros: the gradient to the inputs, with groups that lie anywhere") {
  for (const WeightFormat format : kFormats) {
    const Weight weight(format, 300, 160, 3);
    const Floats dy = draw(5 * 300, 9);
    const Floats dx = on_all_paths([&](const OpContext& ctx) {
      const QuantisedWeight packed = weight.packed(ctx);
      Floats out(5 * 160);
      REQUIRE(product_quantised_nn(
          ctx, {.left = matrix(dy, 5, 300), .right = &packed, .output = matrix(out, 5, 160)}));
      return out;
    });
    Floats expected(5 * 160);
    REQUIRE(product_nn({.pool = single().pool}, {.left = matrix(dy, 5, 300),
                                                 .right = matrix(weight.values, 300, 160),
                                                 .output = matrix(expected, 5, 160)}));
    REQUIRE(same_bits(dx, expected));
  }
}

TEST_CASE("zeros: a product with one input's entry exchanged is told from the right one") {
  const Weight weight(WeightFormat::int4_order, 20, 160, 5);
  const Floats x = draw(160, 8);
  const Floats right = product(single(), weight, x, 1);
  REQUIRE(same_bits(right, chains(weight.values, 20, 160, x, 1)));
  Weight other = weight;
  // The second byte of the first block's entries would be another group's; of all outputs.
  const std::size_t row = row_bytes(weight.format, 160);
  for (std::size_t o = 0; o < 20; ++o) {
    std::byte& entry = other.rows[o * row + 3];
    entry = static_cast<std::byte>((static_cast<int>(entry) + 1) % 5);
  }
  CHECK_FALSE(same_bits(right, product(single(), other, x, 1)));
}

TEST_CASE("zeros: scales, zeros and entries that make no row or no image are refused") {
  const std::vector<std::uint8_t> codes(64, 3);
  const std::vector<std::uint8_t> zeros(2, 8);
  const std::vector<std::uint16_t> entries(64, 1);
  const Floats scales(2, 0.5F);
  for (const WeightFormat format : kFormats) {
    std::vector<std::byte> row(row_bytes(format, 64));
    const bool ordered = is_ordered(format);
    GroupedRow good{codes, scales, zeros, {}};
    if (ordered) good.entries = entries;
    REQUIRE(join_row(format, good, row));
    const auto refused = [&](GroupedRow wrong) {
      const auto joined = join_row(format, wrong, row);
      return !joined && joined.error().code == ErrorCode::invalid_argument;
    };
    GroupedRow wrong = good;
    wrong.zeros = wrong.zeros.first(1);
    CHECK(refused(wrong));
    wrong = good;
    wrong.codes = wrong.codes.first(63);
    CHECK(refused(wrong));
    wrong = good;
    wrong.entries = ordered ? std::span<const std::uint16_t>() : std::span(entries);
    CHECK(refused(wrong));
    for (const float scale : {1.0F / 3.0F, 1e6F, std::numeric_limits<float>::infinity()}) {
      const Floats spoiled{0.5F, scale};
      wrong = good;
      wrong.scales = spoiled;
      CHECK(refused(wrong));
    }
    if (ordered) {
      std::vector<std::uint16_t> far = entries;
      far[40] = 2;
      wrong = good;
      wrong.entries = far;
      CHECK(refused(wrong));
      // A file's bytes may say so too.
      std::vector<std::byte> bytes = row;
      bytes[3] = std::byte{2};
      Floats values(64);
      CHECK_FALSE(dequantise_row(format, bytes, values));
      const auto packed = pack_rows(single(), format, bytes, 1);
      REQUIRE_FALSE(packed);
      CHECK(packed.error().message.find("entry") != std::string::npos);
    }
    std::vector<std::byte> bytes = row;
    bytes[1] = std::byte{0x7c};
    const auto packed = pack_rows(single(), format, bytes, 1);
    REQUIRE_FALSE(packed);
    CHECK(packed.error().message.find("scale") != std::string::npos);
  }
  std::vector<std::byte> row(row_bytes(WeightFormat::q8_0, 64));
  CHECK_FALSE(join_row(WeightFormat::q8_0, {codes, scales, zeros, {}}, row));
}

}  // namespace tutti::kernels::parity
