// Quantised weights: what the blocks say, and products against them on all paths.
#include <fstream>
#include <limits>
#include <sstream>
#include <string>

#include "kernels/ops/weights/quantised_weight.h"
#include "tests/parity/harness.h"

namespace tutti::kernels::parity {
namespace {

std::vector<std::byte> bytes_of_hex(const std::string& text) {
  std::vector<std::byte> bytes(text.size() / 2);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::byte>(std::stoi(text.substr(2 * i, 2), nullptr, 16));
  }
  return bytes;
}

std::size_t size_of(Index count) { return static_cast<std::size_t>(count); }

// Rows in the format, and their values.
struct Weight {
  Weight(WeightFormat format_in, Index outputs_in, Index inputs_in, std::uint64_t stream)
      : format(format_in), outputs(outputs_in), inputs(inputs_in) {
    const Floats exact = draw(outputs * inputs, stream);
    const std::size_t row = row_bytes(format, inputs);
    rows.resize(row * size_of(outputs));
    values.resize(exact.size());
    for (Index o = 0; o < outputs; ++o) {
      const auto bytes = std::span(rows).subspan(size_of(o) * row, row);
      REQUIRE(quantise_row(format, std::span(exact).subspan(size_of(o * inputs), size_of(inputs)),
                           bytes));
      REQUIRE(dequantise_row(format, bytes,
                             std::span(values).subspan(size_of(o * inputs), size_of(inputs))));
    }
  }
  QuantisedWeight packed(const OpContext& ctx) const {
    auto weight = pack_rows(ctx, format, rows, outputs);
    REQUIRE(weight);
    return std::move(*weight);
  }

  WeightFormat format;
  Index outputs, inputs;
  std::vector<std::byte> rows;
  Floats values;
};

// Half a step between codes, of weights uniform in [-1, 1): by bits, with room for rounded scales.
double step_of(WeightFormat format) {
  switch (format) {
    case WeightFormat::bf16: return 1.0 / 512.0;
    case WeightFormat::int8_channel:
    case WeightFormat::q8_0: return 0.5 / 127.0;
    case WeightFormat::q5_0: return 1.0 / 16.0;  // the far end of the sign with one code less
    case WeightFormat::q5_k: return 0.5 * 2.0 / 31.0;
    case WeightFormat::q6_k: return 1.0 / 32.0;
    case WeightFormat::q4_0: return 1.0 / 8.0;
    case WeightFormat::nf4: return 0.16;  // half of the widest gap of the table
    default: return 0.5 * 2.0 / 15.0;
  }
}

Floats run(const OpContext& ctx, const Weight& weight, const Floats& x, Index rows,
           Activations activations) {
  const QuantisedWeight packed = weight.packed(ctx);
  Floats output(size_of(rows * weight.outputs));
  REQUIRE(product_quantised(ctx, {.left = matrix(x, rows, weight.inputs),
                                  .right = &packed,
                                  .output = matrix(output, rows, weight.outputs),
                                  .activations = activations}));
  return output;
}

struct Shape {
  Index m, n, k;  // k in blocks of 256
};
const Shape kShapes[] = {{1, 1, 1},  {1, 64, 2},  {3, 17, 1}, {4, 70, 3},
                         {6, 33, 1}, {9, 128, 2}, {33, 20, 1}};

}  // namespace

TEST_CASE("quantised: GGUF blocks hold the values that the gguf package reads in them") {
  std::ifstream file("tests/golden/gguf_blocks.txt");
  std::string line;
  int formats = 0;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string name, block, bits;
    words >> name >> block >> bits;
    for (const WeightFormat format : kWeightFormats) {
      if (to_string(format) != name) continue;
      ++formats;
      const auto row = bytes_of_hex(block);
      Floats values(256);
      REQUIRE(dequantise_row(format, row, values));
      Floats expected;
      for (std::size_t i = 0; i < bits.size(); i += 8) {
        expected.push_back(std::bit_cast<float>(
            static_cast<std::uint32_t>(std::stoul(bits.substr(i, 8), nullptr, 16))));
      }
      INFO(name);
      REQUIRE(same_bits(values, expected));
    }
  }
  REQUIRE(formats == 6);
}

TEST_CASE("quantised: a weight comes back within half a step of its codes") {
  for (const WeightFormat format : kWeightFormats) {
    const Floats exact = draw(4 * 512, 3);
    const Weight weight(format, 4, 512, 3);
    double largest = 0.0;
    for (std::size_t i = 0; i < exact.size(); ++i) {
      largest = std::max(
          largest, std::abs(static_cast<double>(exact[i]) - static_cast<double>(weight.values[i])));
    }
    INFO(to_string(format));
    CHECK(largest <= step_of(format) * 1.1);
    CHECK(largest > step_of(format) * 0.1);
  }
}

TEST_CASE("quantised: exact activations give the chains of the values, on every device") {
  for (const WeightFormat format : kWeightFormats) {
    for (const Shape& shape : kShapes) {
      const Weight weight(format, shape.n, shape.k * 256, 5);
      const Floats x = draw(shape.m * weight.inputs, 6);
      INFO(to_string(format) << " " << shape.m << " x " << shape.n << " x " << weight.inputs);
      Floats expected;
      for (Index r = 0; r < shape.m; ++r) {
        for (Index o = 0; o < shape.n; ++o) {
          float sum = 0.0F;
          for (Index k = 0; k < weight.inputs; ++k) {
            sum = std::fma(x[size_of(r * weight.inputs + k)],
                           weight.values[size_of(o * weight.inputs + k)], sum);
          }
          expected.push_back(sum);
        }
      }
      REQUIRE(same_bits(run(single(), weight, x, shape.m, Activations::exact), expected));
    }
    const Weight weight(format, 70, 256, 5);
    const Floats x = draw(5 * 256, 6);
    on_all_paths([&](const OpContext& ctx) { return run(ctx, weight, x, 5, Activations::exact); });
  }
}

TEST_CASE("quantised: int8 activations, the same bits on all paths, near the exact product") {
  Golden golden("product quantised, int8");
  for (const WeightFormat format : kWeightFormats) {
    if (!has_integer_codes(format)) continue;
    for (const Shape& shape : kShapes) {
      const Weight weight(format, shape.n, shape.k * 256, 5);
      const Floats x = draw(shape.m * weight.inputs, 6);
      INFO(to_string(format) << " " << shape.m << " x " << shape.n << " x " << weight.inputs);
      const Floats result = on_all_paths(golden, [&](const OpContext& ctx) {
        return run(ctx, weight, x, shape.m, Activations::int8);
      });
      for (Index r = 0; r < shape.m; ++r) {
        for (Index o = 0; o < shape.n; ++o) {
          double exact = 0.0;
          double magnitude = 0.0;
          for (Index k = 0; k < weight.inputs; ++k) {
            const auto w = static_cast<double>(weight.values[size_of(o * weight.inputs + k)]);
            exact += w * static_cast<double>(x[size_of(r * weight.inputs + k)]);
            magnitude += std::abs(w);
          }
          // Half a step of x for each weight, and the rounding of the chain.
          const double bound = magnitude * 0.51 / 127.0 + tolerance(weight.inputs, magnitude);
          const auto actual = static_cast<double>(result[size_of(r * shape.n + o)]);
          REQUIRE(std::abs(actual - exact) <= bound);
        }
      }
    }
  }
  golden.check();
}

TEST_CASE("quantised: a row is the same alone and among others, bias and residual come last") {
  for (const WeightFormat format : kWeightFormats) {
    const auto activations = has_integer_codes(format) ? Activations::int8 : Activations::exact;
    const Weight weight(format, 40, 256, 1);
    const Floats x = draw(11 * 256, 2);
    const Floats bias = draw(40, 3);
    const Floats residual = draw(11 * 40, 4);
    const Floats plain = run(single(), weight, x, 11, activations);
    const QuantisedWeight packed = weight.packed(single());
    for (const Index row : {0, 3, 10}) {
      Floats alone(40);
      REQUIRE(
          product_quantised(single(), {.left = matrix(x, 11, 256).row_range(row, 1),
                                       .right = &packed,
                                       .output = matrix(alone, 1, 40),
                                       .activations = activations,
                                       .bias = bias.data(),
                                       .residual = matrix(residual, 11, 40).row_range(row, 1)}));
      Floats expected(40);
      for (std::size_t o = 0; o < 40; ++o) {
        const float biased = plain[size_of(row) * 40 + o] + bias[o];
        expected[o] = biased + residual[size_of(row) * 40 + o];
      }
      REQUIRE(same_bits(alone, expected));
    }
  }
}

TEST_CASE("quantised: codes at their ends, values that are not finite, huge ones") {
  for (const WeightFormat format : kWeightFormats) {
    Weight weight(format, 16, 256, 1);
    // The one int8 code without a counterpart, by the largest activations.
    if (format == WeightFormat::q8_0) {
      for (std::size_t i = 0; i < weight.rows.size(); ++i) {
        if (i % 34 >= 2) weight.rows[i] = std::byte{0x80};
      }
    }
    Floats x(256, 1e30F);
    if (!has_integer_codes(format)) continue;
    const Floats huge = on_all_paths(
        [&](const OpContext& ctx) { return run(ctx, weight, x, 1, Activations::int8); });
    for (const float value : huge) CHECK(std::isfinite(value));
    x[7] = std::numeric_limits<float>::infinity();
    for (const float value : run(single(), weight, x, 1, Activations::int8)) {
      CHECK(std::isnan(value));
    }
  }
}

TEST_CASE("quantised: what does not fit is refused") {
  Floats values(256, 1.0F);
  std::vector<std::byte> row(row_bytes(WeightFormat::q4_k, 256));
  CHECK(quantise_row(WeightFormat::q4_k, values, row));
  CHECK_FALSE(quantise_row(WeightFormat::q4_k, std::span(values).first(128), row));
  CHECK_FALSE(dequantise_row(WeightFormat::q5_k, row, values));
  values[3] = std::numeric_limits<float>::quiet_NaN();
  CHECK_FALSE(quantise_row(WeightFormat::q4_k, values, row));
  values[3] = 3e38F;
  CHECK_FALSE(quantise_row(WeightFormat::q4_k, values, row));
  CHECK_FALSE(pack_rows(single(), WeightFormat::q8_0, row, 7));
  const Weight weight(WeightFormat::nf4, 2, 64, 1);
  const QuantisedWeight packed = weight.packed(single());
  Floats output(2);
  const Floats x = draw(64, 1);
  CHECK_FALSE(product_quantised(single(), {.left = matrix(x, 1, 64),
                                           .right = &packed,
                                           .output = matrix(output, 1, 2),
                                           .activations = Activations::int8}));
  CHECK_FALSE(product_quantised(single(), {.left = matrix(x, 2, 32),
                                           .right = &packed,
                                           .output = matrix(output, 1, 2),
                                           .activations = Activations::exact}));
}

}  // namespace tutti::kernels::parity
