// Gradients of ops that are linear in what they are a gradient to, against finite differences of
// the op's meaning in double precision. Their bits are tested beside the ops.
#include "kernels/ops/elementwise/dropout.h"
#include "kernels/ops/embedding.h"
#include "kernels/ops/product.h"
#include "kernels/ops/product_batched.h"
#include "kernels/ops/product_bf16.h"
#include "kernels/ops/weights/product_quantised_nn.h"
#include "tests/parity/harness.h"
#include "tests/support/skip.h"

namespace tutti::kernels::parity {
namespace {

std::size_t size_of(Index count) { return static_cast<std::size_t>(count); }

// x w^T + bias.
Table linear(const Table& x, const Table& w, const Table& bias) {
  Table y(x.rows, w.rows);
  for (Index r = 0; r < x.rows; ++r) {
    for (Index n = 0; n < w.rows; ++n) {
      double sum = bias.at(0, n);
      for (Index k = 0; k < x.columns; ++k) sum += x.at(r, k) * w.at(n, k);
      y.at(r, n) = sum;
    }
  }
  return y;
}

// A linear layer of so many tokens, and the gradient of its outputs.
struct Layer {
  static constexpr Index kTokens = 29;
  static constexpr Index kOutputs = 37;
  static constexpr Index kInputs = 70;

  Floats x = draw(kTokens * kInputs, 1);
  Floats w = draw(kOutputs * kInputs, 2);
  Floats bias = draw(kOutputs, 3);
  Floats dy = draw(kTokens * kOutputs, 4);

  ConstMatrix xs() const { return matrix(x, kTokens, kInputs); }
  ConstMatrix ws() const { return matrix(w, kOutputs, kInputs); }
  ConstMatrix dys() const { return matrix(dy, kTokens, kOutputs); }

  double error_to_inputs(std::span<const float> dx) const {
    return gradient_error({.loss = [&](const Table& t) { return loss(t, Table(ws()), biases()); },
                           .at = Table(xs()),
                           .gradient = dx});
  }
  double error_to_weight(std::span<const float> dw) const {
    return gradient_error({.loss = [&](const Table& t) { return loss(Table(xs()), t, biases()); },
                           .at = Table(ws()),
                           .gradient = dw});
  }
  double error_to_bias(std::span<const float> dbias) const {
    return gradient_error(
        {.loss = [&](const Table& t) { return loss(Table(xs()), Table(ws()), t); },
         .at = biases(),
         .gradient = dbias});
  }

 private:
  Table biases() const { return Table(matrix(bias, 1, kOutputs)); }
  double loss(const Table& at, const Table& weight, const Table& added) const {
    return weighted_sum(linear(at, weight, added), dy);
  }
};

std::vector<Bf16> rounded(const Floats& values) {
  std::vector<Bf16> halves(values.size());
  REQUIRE(to_bf16(single(), values, halves));
  return halves;
}

Floats widened(const std::vector<Bf16>& halves) {
  Floats values(halves.size());
  REQUIRE(from_bf16(single(), halves, values));
  return values;
}

}  // namespace

TEST_CASE("gradients: nn and tn are those of nt, column sums that of its bias") {
  const Layer layer;
  const Floats all = on_all_paths([&](const OpContext& ctx) {
    Floats out(layer.x.size() + layer.w.size() + layer.bias.size());
    float* const dw = out.data() + layer.x.size();
    REQUIRE(product_nn(ctx, {.left = layer.dys(),
                             .right = layer.ws(),
                             .output = {out.data(), Layer::kTokens, Layer::kInputs}}));
    REQUIRE(product_tn(ctx, {.left = layer.dys(),
                             .right = layer.xs(),
                             .output = {dw, Layer::kOutputs, Layer::kInputs}}));
    REQUIRE(column_sums(
        ctx, {.x = layer.dys(), .output = dw + layer.w.size(), .start = ChainStart::zero}));
    return out;
  });
  const std::span gradients(all);
  REQUIRE(layer.error_to_inputs(gradients.first(layer.x.size())) < mean_tolerance(Layer::kOutputs));
  REQUIRE(layer.error_to_weight(gradients.subspan(layer.x.size(), layer.w.size())) <
          mean_tolerance(Layer::kTokens));
  REQUIRE(layer.error_to_bias(gradients.last(layer.bias.size())) < mean_tolerance(Layer::kTokens));
}

TEST_CASE("gradients: those of weights by shards and in batches are sums of the same terms") {
  if (single().device != nullptr) {
    WARN("skipped: a GPU has neither products by shards nor batches of them");
    return;
  }
  const Layer layer;
  constexpr Index kEnds[] = {7, 7, 20, Layer::kTokens};
  const Floats by_shards = on_all_paths([&](const OpContext& ctx) {
    Floats dw(layer.w.size());
    REQUIRE(product_tn_shards(ctx, {.left = layer.dys(),
                                    .right = layer.xs(),
                                    .output = matrix(dw, Layer::kOutputs, Layer::kInputs),
                                    .ends = kEnds}));
    return dw;
  });
  REQUIRE(layer.error_to_weight(by_shards) < mean_tolerance(Layer::kTokens));
  // Tokens of two halves of the inputs, side by side.
  constexpr Index kHalf = Layer::kInputs / 2;
  const Floats batched = on_all_paths([&](const OpContext& ctx) {
    Floats dw(layer.w.size());
    REQUIRE(product_batched(
        ctx, {.form = ProductForm::tn,
              .count = 2,
              .left = layer.dys(),
              .right = layer.xs().column_range(0, kHalf),
              .right_step = kHalf,
              .output = matrix(dw, Layer::kOutputs, Layer::kInputs).column_range(0, kHalf),
              .output_step = kHalf}));
    return dw;
  });
  REQUIRE(layer.error_to_weight(batched) < mean_tolerance(Layer::kTokens));
}

TEST_CASE("gradients: nn and tn of bf16 numbers are those of nt, in every arithmetic") {
  if (single().device != nullptr) {
    WARN("skipped: a GPU rounds inside its products");
    return;
  }
  Layer layer;
  const std::vector<Bf16> x = rounded(layer.x);
  const std::vector<Bf16> w = rounded(layer.w);
  const std::vector<Bf16> dy = rounded(layer.dy);
  layer.x = widened(x);
  layer.w = widened(w);
  layer.dy = widened(dy);
  const Bf16Matrix dys(dy.data(), Layer::kTokens, Layer::kOutputs);
  const CpuPath before = cpu_path();
  if (!choose_cpu_path(CpuPath::avx512bf16)) test::skip_part("no native bf16 products here");
  for (const Bf16Arithmetic arithmetic :
       {Bf16Arithmetic::widened, Bf16Arithmetic::native, Bf16Arithmetic::tiles}) {
    if (!has_bf16(arithmetic)) continue;
    INFO(profile_of(arithmetic));
    Floats dx(layer.x.size());
    REQUIRE(product_bf16_nn(single(), {.left = dys,
                                       .right = {w.data(), Layer::kOutputs, Layer::kInputs},
                                       .output = matrix(dx, Layer::kTokens, Layer::kInputs),
                                       .arithmetic = arithmetic}));
    Floats dw(layer.w.size());
    REQUIRE(product_bf16_tn(single(), {.left = dys,
                                       .right = {x.data(), Layer::kTokens, Layer::kInputs},
                                       .output = matrix(dw, Layer::kOutputs, Layer::kInputs),
                                       .arithmetic = arithmetic}));
    // Tiles add a group's two chains to the sum: of the own steps that are counted.
    REQUIRE(layer.error_to_inputs(dx) < mean_tolerance(Layer::kOutputs));
    REQUIRE(layer.error_to_weight(dw) < mean_tolerance(Layer::kTokens));
    Floats batched(layer.x.size());
    constexpr Index kHalf = Layer::kInputs / 2;
    REQUIRE(product_bf16_batched(
        single(), {.form = ProductForm::nn,
                   .count = 2,
                   .left = dys,
                   .right = {w.data(), Layer::kOutputs, kHalf, Layer::kInputs},
                   .right_step = kHalf,
                   .output = matrix(batched, Layer::kTokens, Layer::kInputs).column_range(0, kHalf),
                   .output_step = kHalf,
                   .arithmetic = arithmetic}));
    REQUIRE(layer.error_to_inputs(batched) < mean_tolerance(Layer::kOutputs));
  }
  REQUIRE(choose_cpu_path(before));
}

TEST_CASE("gradients: to the inputs of a layer whose weight is quantised, in every format") {
  constexpr Index kTokens = 5;
  constexpr Index kOutputs = 37;
  constexpr Index kInputs = 256;
  const Floats drawn = draw(kOutputs * kInputs, 1);
  const Floats x = draw(kTokens * kInputs, 2);
  const Floats dy = draw(kTokens * kOutputs, 3);
  for (const WeightFormat format : kWeightFormats) {
    INFO(to_string(format));
    const Floats dx = on_all_paths([&](const OpContext& ctx) {
      const auto packed = quantise_weight(ctx, format, matrix(drawn, kOutputs, kInputs));
      REQUIRE(packed);
      Floats out(x.size());
      REQUIRE(product_quantised_nn(ctx, {.left = matrix(dy, kTokens, kOutputs),
                                         .right = &*packed,
                                         .output = matrix(out, kTokens, kInputs)}));
      return out;
    });
    Floats values = drawn;
    std::vector<std::byte> row(row_bytes(format, kInputs));
    for (Index o = 0; o < kOutputs; ++o) {
      const auto mine = std::span(values).subspan(size_of(o * kInputs), size_of(kInputs));
      REQUIRE(quantise_row(format, mine, row));
      REQUIRE(dequantise_row(format, row, mine));
    }
    const Table weight(matrix(values, kOutputs, kInputs));
    const auto loss = [&](const Table& t) {
      return weighted_sum(linear(t, weight, Table(1, kOutputs)), dy);
    };
    REQUIRE(
        gradient_error({.loss = loss, .at = Table(matrix(x, kTokens, kInputs)), .gradient = dx}) <
        mean_tolerance(kOutputs));
  }
}

TEST_CASE("gradients: an embedding's goes to the rows of its tokens") {
  constexpr Index kRows = 7;
  constexpr Index kColumns = 45;
  const std::vector<std::int32_t> tokens = {3, 0, 3, 3, 6, 0};
  const auto count = static_cast<Index>(tokens.size());
  const Floats table = draw(kRows * kColumns, 1);
  const Floats dout = draw(count * kColumns, 2);
  const Floats dtable = on_all_paths([&](const OpContext& ctx) {
    Floats out(table.size());
    REQUIRE(embedding_backward(ctx, {.dout = matrix(dout, count, kColumns),
                                     .tokens = tokens,
                                     .dtable = matrix(out, kRows, kColumns)}));
    return out;
  });
  const auto loss = [&](const Table& at) {
    Table rows(count, kColumns);
    for (Index t = 0; t < count; ++t) {
      for (Index c = 0; c < kColumns; ++c) rows.at(t, c) = at.at(tokens[size_of(t)], c);
    }
    return weighted_sum(rows, dout);
  };
  REQUIRE(gradient_error(
              {.loss = loss, .at = Table(matrix(table, kRows, kColumns)), .gradient = dtable}) <
          mean_tolerance(count));
}

TEST_CASE("gradients: dropout's is the same mask over the gradient of its outputs") {
  constexpr Index kRows = 9;
  constexpr Index kColumns = 203;
  constexpr std::uint64_t kFirstRow = 1000;
  constexpr double kRate = 0.25;
  const RandomKey key{5, purpose_of("dropout's gradient")};
  const Floats x = draw(kRows * kColumns, 1);
  const Floats dy = draw(kRows * kColumns, 2);
  const Floats dx = on_all_paths([&](const OpContext& ctx) {
    Floats out(dy.size());
    REQUIRE(dropout(ctx, {.key = key,
                          .first_row = kFirstRow,
                          .rate = kRate,
                          .x = matrix(dy, kRows, kColumns),
                          .y = matrix(out, kRows, kColumns)}));
    return out;
  });
  // Half-word i mod 8 of draw i / 8, as dropout.h has it.
  const auto is_kept = [&](std::uint64_t i) {
    const std::uint32_t word = random_words(key, i / 8).at(i % 8 / 2);
    return (i % 2 == 0 ? word & 0xffffU : word >> 16) >= 65536 * kRate;
  };
  const auto loss = [&](const Table& at) {
    Table y(kRows, kColumns);
    for (std::size_t i = 0; i < y.data.size(); ++i) {
      if (is_kept(kFirstRow * kColumns + i)) y.data[i] = at.data[i] / (1.0 - kRate);
    }
    return weighted_sum(y, dy);
  };
  REQUIRE(gradient_error({.loss = loss, .at = Table(matrix(x, kRows, kColumns)), .gradient = dx}) <
          mean_tolerance(1));
}

TEST_CASE("gradients: the comparison catches tokens that were left out or come late") {
  const Layer layer;
  Floats dw(layer.w.size());
  REQUIRE(product_tn(single(), {.left = layer.dys().row_range(1, Layer::kTokens - 1),
                                .right = layer.xs().row_range(1, Layer::kTokens - 1),
                                .output = matrix(dw, Layer::kOutputs, Layer::kInputs)}));
  CHECK(layer.error_to_weight(dw) > 100.0 * mean_tolerance(Layer::kTokens));
  Floats dbias(layer.bias.size());
  REQUIRE(column_sums(single(), {.x = layer.dys().row_range(1, Layer::kTokens - 1),
                                 .output = dbias.data(),
                                 .start = ChainStart::zero}));
  CHECK(layer.error_to_bias(dbias) > 100.0 * mean_tolerance(Layer::kTokens));
  // The rows of dx one token late.
  Floats dx(layer.x.size());
  REQUIRE(product_nn(
      single(),
      {.left = layer.dys().row_range(0, Layer::kTokens - 1),
       .right = layer.ws(),
       .output = matrix(dx, Layer::kTokens, Layer::kInputs).row_range(1, Layer::kTokens - 1)}));
  CHECK(layer.error_to_inputs(dx) > 100.0 * mean_tolerance(Layer::kOutputs));
}

}  // namespace tutti::kernels::parity
