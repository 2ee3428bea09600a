// Quantised weights: what the blocks say, and products against them on all paths.
#include <fstream>
#include <limits>
#include <sstream>
#include <string>

#include "kernels/ops/elementwise/activation.h"
#include "kernels/ops/weights/quantised_weight.h"
#include "tests/parity/harness.h"
#include "tests/support/larger.h"

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

// Half a step between codes, of weights uniform in [-1, 1): by bits.
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
    case WeightFormat::int8_zero:
    case WeightFormat::int8_order: return 0.5 * 2.0 / 255.0;
    case WeightFormat::fp8_e4m3: return 1.0 / 28.0;  // half of 448's last step, 32, over 448
    case WeightFormat::fp8_e5m2: return 1.0 / 14.0;  // of 57,344's, 8,192
    default: return 0.5 * 2.0 / 15.0;
  }
}

// How far each scale, and each minimum, of a block may be from what its weights ask for: half a
// unit of a half; of codes of 6 bits and of 8, half a step of the largest in their block of blocks.
double scale_tolerance(WeightFormat format) {
  constexpr double kHalf = 0x1p-11;
  switch (format) {
    case WeightFormat::bf16:
    case WeightFormat::int8_channel:
    case WeightFormat::nf4:
    case WeightFormat::fp8_e4m3:
    case WeightFormat::fp8_e5m2: return rounding_tolerance(kUnit, 1);
    case WeightFormat::q4_k:
    case WeightFormat::q5_k: return 2.0 * (rounding_tolerance(kHalf, 1) + 0.5 / 63.0);
    case WeightFormat::q6_k: return rounding_tolerance(kHalf, 1) + 0.5 / 127.0;
    case WeightFormat::int4_group: return rounding_tolerance(kHalf, 2);
    default: return rounding_tolerance(kHalf, 1);
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

// The chains of the values, from what `held` has.
Floats chains_of(const Weight& weight, const Floats& x, Index rows, const Floats& held) {
  Floats expected = held;
  for (Index r = 0; r < rows; ++r) {
    for (Index o = 0; o < weight.outputs; ++o) {
      float& sum = expected[size_of(r * weight.outputs + o)];
      for (Index k = 0; k < weight.inputs; ++k) {
        sum = std::fma(x[size_of(r * weight.inputs + k)],
                       weight.values[size_of(o * weight.inputs + k)], sum);
      }
    }
  }
  return expected;
}

// Half a step of x for each weight, and the rounding of the chain.
void require_near_exact(const Floats& result, const Weight& weight, const Floats& x, Index rows) {
  for (Index r = 0; r < rows; ++r) {
    for (Index o = 0; o < weight.outputs; ++o) {
      double exact = 0.0;
      double magnitude = 0.0;
      for (Index k = 0; k < weight.inputs; ++k) {
        const auto w = static_cast<double>(weight.values[size_of(o * weight.inputs + k)]);
        exact += w * static_cast<double>(x[size_of(r * weight.inputs + k)]);
        magnitude += std::abs(w);
      }
      const double bound =
          rounding_tolerance(0.5 / 127.0, 1, magnitude) + tolerance(weight.inputs, magnitude);
      const auto actual = static_cast<double>(result[size_of(r * weight.outputs + o)]);
      REQUIRE(std::abs(actual - exact) <= bound);
    }
  }
}

// The meanings that the format has.
std::vector<Activations> meanings_of(WeightFormat format) {
  if (!has_integer_codes(format)) return {Activations::exact};
  return {Activations::exact, Activations::int8};
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
      largest = test::larger(
          largest, std::abs(static_cast<double>(exact[i]) - static_cast<double>(weight.values[i])));
    }
    INFO(to_string(format));
    CHECK(largest <= step_of(format) + scale_tolerance(format) + tolerance(0, 1.0));
    CHECK(largest > step_of(format) * 0.1);
  }
}

TEST_CASE("quantised: exact activations give the chains of the values, on every device") {
  for (const WeightFormat format : kWeightFormats) {
    for (const Shape& shape : kShapes) {
      const Weight weight(format, shape.n, shape.k * 256, 5);
      const Floats x = draw(shape.m * weight.inputs, 6);
      INFO(to_string(format) << " " << shape.m << " x " << shape.n << " x " << weight.inputs);
      const Floats expected = chains_of(weight, x, shape.m, Floats(size_of(shape.m * shape.n)));
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
      require_near_exact(result, weight, x, shape.m);
    }
  }
  golden.check();
}

// A block of eight cells has its records, so its end and the end of the row are cases of their own.
TEST_CASE("quantised: rows of one cell, and of cells that fill no block of eight") {
  Golden golden("product quantised, few cells");
  for (const WeightFormat format : kWeightFormats) {
    for (const Index inputs : {32, 64, 96, 192, 288}) {
      if (inputs % block_inputs(format) != 0) continue;
      for (const Shape& shape : {Shape{1, 17, 0}, Shape{3, 64, 0}, Shape{9, 70, 0}}) {
        const Weight weight(format, shape.n, inputs, 5);
        const Floats x = draw(shape.m * inputs, 6);
        INFO(to_string(format) << " " << shape.m << " x " << shape.n << " x " << inputs);
        for (const Activations activations : meanings_of(format)) {
          const Floats result = on_all_paths(golden, [&](const OpContext& ctx) {
            return run(ctx, weight, x, shape.m, activations);
          });
          if (activations == Activations::int8) {
            require_near_exact(result, weight, x, shape.m);
          } else {
            REQUIRE(same_bits(result,
                              chains_of(weight, x, shape.m, Floats(size_of(shape.m * shape.n)))));
          }
        }
      }
    }
  }
  golden.check();
}

// Two calls, the second from what the first left, are one call over all inputs: blocks have scales
// of their own. A channel's scale is its whole row's, so there the sum of both is only near.
TEST_CASE("quantised: a chain goes on from what its output holds") {
  constexpr Index kOutputs = 40;
  constexpr Index kHalf = 256;
  for (const WeightFormat format : kWeightFormats) {
    if (is_ordered(format)) continue;  // half of a row has not the whole one's entries
    const Weight whole(format, kOutputs, 2 * kHalf, 1);
    Weight halves[] = {Weight(format, kOutputs, kHalf, 1), Weight(format, kOutputs, kHalf, 1)};
    const bool by_row = format == WeightFormat::int8_channel;
    const std::size_t half_row = row_bytes(format, kHalf);
    for (Index o = 0; o < kOutputs && !by_row; ++o) {
      for (std::size_t half = 0; half < 2; ++half) {
        std::copy_n(
            whole.rows.begin() + static_cast<std::ptrdiff_t>((2 * size_of(o) + half) * half_row),
            half_row,
            halves[half].rows.begin() + static_cast<std::ptrdiff_t>(size_of(o) * half_row));
      }
    }
    for (const Index rows : {1, 4, 11}) {
      const Floats x = draw(rows * 2 * kHalf, 2);
      for (const Activations activations : meanings_of(format)) {
        INFO(to_string(format) << " rows " << rows);
        const Floats continued = on_all_paths([&](const OpContext& ctx) {
          Floats output(size_of(rows * kOutputs), by_row ? 3.0F : 7.0F);
          for (std::size_t half = 0; half < 2; ++half) {
            if (by_row && half == 0) continue;
            const QuantisedWeight packed = halves[half].packed(ctx);
            REQUIRE(product_quantised(
                ctx, {.left = matrix(x, rows, 2 * kHalf)
                                  .column_range(static_cast<Index>(half) * kHalf, kHalf),
                      .right = &packed,
                      .output = matrix(output, rows, kOutputs),
                      .activations = activations,
                      .start = half == 0 ? ChainStart::zero : ChainStart::output}));
          }
          return output;
        });
        if (!by_row) {
          REQUIRE(same_bits(continued, run(single(), whole, x, rows, activations)));
          continue;
        }
        Floats second;
        for (Index r = 0; r < rows; ++r) {
          const float* const from = x.data() + (2 * r + 1) * kHalf;
          second.insert(second.end(), from, from + kHalf);
        }
        const Floats alone = run(single(), halves[1], second, rows, activations);
        for (std::size_t i = 0; i < alone.size(); ++i) {
          REQUIRE(std::abs(static_cast<double>(continued[i]) - 3.0 -
                           static_cast<double>(alone[i])) <= tolerance(kHalf, kHalf + 3.0));
        }
      }
    }
  }
}

TEST_CASE("quantised: ends are the ops that they stand for, one after the other") {
  if (single().device != nullptr) {
    WARN("skipped: products on a GPU give no bf16");
    return;
  }
  constexpr Index kOutputs = 40;
  for (const WeightFormat format : kWeightFormats) {
    const Weight weight(format, kOutputs, 256, 1);
    const Floats bias = draw(kOutputs, 3);
    for (const Index rows : {1, 4, 11}) {
      const Floats x = draw(rows * 256, 2);
      const Floats residual = draw(rows * kOutputs, 4);
      const Floats gate = draw(rows * kOutputs, 5);
      for (const Activations activations : meanings_of(format)) {
        const auto product = [&](const OpContext& ctx, QuantisedProduct args) {
          const QuantisedWeight packed = weight.packed(ctx);
          args.left = matrix(x, rows, 256);
          args.right = &packed;
          args.activations = activations;
          args.bias = bias.data();
          args.residual = matrix(residual, rows, kOutputs);
          REQUIRE(product_quantised(ctx, args));
        };
        Floats sum(residual.size());
        product(single(), {.left = {}, .output = matrix(sum, rows, kOutputs)});
        for (const Activation kind : {Activation::gelu, Activation::silu, Activation::relu}) {
          INFO(to_string(format) << " rows " << rows << " kind " << static_cast<int>(kind));
          const ConstMatrix sums = matrix(std::as_const(sum), rows, kOutputs);
          const ConstMatrix gates = matrix(gate, rows, kOutputs);
          Floats expected(sum.size());
          Floats gated(sum.size());
          const Matrix plain = matrix(expected, rows, kOutputs);
          REQUIRE(activation_forward(single(), {kind, sums, plain}));
          REQUIRE(gate_forward(single(), {kind, gates, sums, matrix(gated, rows, kOutputs)}));
          REQUIRE(same_bits(
              on_all_paths([&](const OpContext& ctx) {
                Floats y(sum.size());
                product(ctx, {.left = {}, .output = matrix(y, rows, kOutputs), .activation = kind});
                return y;
              }),
              expected));
          REQUIRE(same_bits(on_all_paths([&](const OpContext& ctx) {
                              Floats y(sum.size());
                              product(ctx, {.left = {},
                                            .output = matrix(y, rows, kOutputs),
                                            .activation = kind,
                                            .gate = gates});
                              return y;
                            }),
                            gated));
          std::vector<Bf16> halves(sum.size());
          REQUIRE(to_bf16(single(), expected, halves));
          Floats rounded(sum.size());
          REQUIRE(from_bf16(single(), halves, rounded));
          REQUIRE(same_bits(on_all_paths([&](const OpContext& ctx) {
                              std::vector<Bf16> narrow(sum.size());
                              product(ctx, {.left = {},
                                            .output = {},
                                            .activation = kind,
                                            .narrow = {narrow.data(), rows, kOutputs}});
                              Floats wide(sum.size());
                              REQUIRE(from_bf16(ctx, narrow, wide));
                              return wide;
                            }),
                            rounded));
        }
      }
    }
  }
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
    // A row's codes are of no use then; those of the row beside it are.
    x.resize(512, 1e30F);
    for (const float spoiled : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
      x[7] = spoiled;
      on_all_paths([&](const OpContext& ctx) {
        const Floats both = run(ctx, weight, x, 2, Activations::int8);
        const bool all_nan =
            std::all_of(both.begin(), both.begin() + 16, [](float v) { return std::isnan(v); });
        CHECK(all_nan);
        CHECK(same_bits(std::span(both).last(16), huge));
        return Floats{};
      });
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
