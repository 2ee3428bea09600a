// Norm, rotary, gate, embedding, addition: against their meaning, with gradients against finite
// differences.
#include <limits>

#include "kernels/ops/add.h"
#include "kernels/ops/elementwise/layer_norm.h"
#include "kernels/ops/embedding.h"
#include "kernels/ops/rms_norm.h"
#include "kernels/ops/rotary.h"
#include "kernels/ops/silu_gate.h"
#include "tests/parity/harness.h"
#include "tests/support/larger.h"

namespace tutti::kernels::parity {
namespace {

// An empty batch, one element, odd widths around sixteen lanes, a width of the demo.
struct Shape {
  Index rows, columns;
};
const Shape kShapes[] = {{0, 8}, {1, 1}, {3, 15}, {5, 16}, {7, 33}, {200, 192}};

std::vector<double> widened(const Floats& values) { return {values.begin(), values.end()}; }

struct NormResult {
  Floats y, inverse;
};

NormResult norm(const OpContext& ctx, const Floats& x, const Floats& weight, Index rows) {
  const auto columns = static_cast<Index>(weight.size());
  NormResult result{Floats(x.size()), Floats(static_cast<std::size_t>(rows))};
  REQUIRE(rms_norm_forward(ctx, {.x = matrix(x, rows, columns),
                                 .weight = weight.data(),
                                 .y = matrix(result.y, rows, columns),
                                 .inverse = result.inverse.data()}));
  return result;
}

}  // namespace

TEST_CASE("rms norm: forward agrees with its meaning on all paths") {
  Golden golden("rms norm forward");
  Golden statistics("rms norm forward, statistics");
  for (const Shape& s : kShapes) {
    const Floats x = draw(s.rows * s.columns, 1);
    const Floats weight = draw(s.columns, 2);
    const Floats both = on_all_paths([&](const OpContext& ctx) {
      NormResult n = norm(ctx, x, weight, s.rows);
      n.y.insert(n.y.end(), n.inverse.begin(), n.inverse.end());
      return std::move(n.y);
    });
    const auto y = std::span(both).first(x.size());
    golden.add(y);
    statistics.add(std::span(both).subspan(x.size()));
    const Table expected =
        reference::rms_norm(Table(matrix(x, s.rows, s.columns)), widened(weight), 1e-5);
    REQUIRE(largest_difference(y, expected) <= tolerance(s.columns, largest_magnitude(expected)));
  }
  golden.check();
  statistics.check();
}

TEST_CASE("rms norm: gradients agree with finite differences, and continue over calls") {
  Golden golden("rms norm backward");
  const Index rows = 9;
  const Index columns = 37;
  const Floats x = draw(rows * columns, 1);
  const Floats weight = draw(columns, 2);
  const Floats dy = draw(rows * columns, 3);
  const Floats residual = draw(rows * columns, 4);
  const NormResult forward = norm(single(), x, weight, rows);
  const auto backward = [&](const OpContext& ctx, Index first, Index count, Floats& dx,
                            Floats& dweight) {
    REQUIRE(rms_norm_backward(
        ctx, {.dy = matrix(dy, rows, columns).row_range(first, count),
              .x = matrix(x, rows, columns).row_range(first, count),
              .weight = weight.data(),
              .inverse = forward.inverse.data() + first,
              .dx = matrix(dx, rows, columns).row_range(first, count),
              .dweight = dweight.data(),
              .residual = matrix(residual, rows, columns).row_range(first, count)}));
  };
  const Floats both = on_all_paths(golden, [&](const OpContext& ctx) {
    Floats dx(x.size());
    Floats dweight(weight.size());
    backward(ctx, 0, rows, dx, dweight);
    Floats again(x.size());
    Floats continued(weight.size());
    backward(ctx, 0, 4, again, continued);
    backward(ctx, 4, rows - 4, again, continued);
    REQUIRE(same_bits(again, dx));
    REQUIRE(same_bits(continued, dweight));
    dx.insert(dx.end(), dweight.begin(), dweight.end());
    return dx;
  });
  const auto loss = [&](const Table& at, const std::vector<double>& w) {
    return weighted_sum(reference::rms_norm(at, w, 1e-5), dy) + weighted_sum(at, residual);
  };
  const Table at(matrix(x, rows, columns));
  REQUIRE(gradient_error({.loss = [&](const Table& t) { return loss(t, widened(weight)); },
                          .at = at,
                          .gradient = std::span(both).first(x.size())}) <
          mean_tolerance(rows + columns));
  REQUIRE(gradient_error({.loss = [&](const Table& w) { return loss(at, w.data); },
                          .at = Table(matrix(weight, 1, columns)),
                          .gradient = std::span(both).subspan(x.size())}) <
          mean_tolerance(rows + columns));
  golden.check();
}

TEST_CASE("norms: what is written may take the place of what is read, row by row") {
  // More than one piece of rows.
  const Index rows = 400;
  const Index columns = 45;
  const Floats x = draw(rows * columns, 1);
  const Floats weight = draw(columns, 2);
  const Floats dy = draw(rows * columns, 3);
  const Floats residual = draw(rows * columns, 4);
  const Floats mean = draw(rows, 5);
  const Floats inverse = draw(rows, 6);
  enum class Place { apart, over_dy, over_residual };
  // Of either norm: its outputs, then its gradients.
  const auto gradients = [&](const OpContext& ctx, bool layer, Place place) {
    Floats out = place == Place::over_dy         ? dy
                 : place == Place::over_residual ? residual
                                                 : Floats(x.size());
    const Matrix dx = matrix(out, rows, columns);
    const ConstMatrix from = place == Place::over_dy ? dx : matrix(dy, rows, columns);
    const ConstMatrix added = place == Place::over_residual ? dx : matrix(residual, rows, columns);
    Floats dweight(weight.size());
    if (layer) {
      REQUIRE(layer_norm_backward(ctx, {.dy = from,
                                        .x = matrix(x, rows, columns),
                                        .weight = weight.data(),
                                        .mean = mean.data(),
                                        .inverse = inverse.data(),
                                        .dx = dx,
                                        .dweight = dweight.data(),
                                        .residual = added}));
    } else {
      REQUIRE(rms_norm_backward(ctx, {.dy = from,
                                      .x = matrix(x, rows, columns),
                                      .weight = weight.data(),
                                      .inverse = inverse.data(),
                                      .dx = dx,
                                      .dweight = dweight.data(),
                                      .residual = added}));
    }
    out.insert(out.end(), dweight.begin(), dweight.end());
    return out;
  };
  const auto forward = [&](const OpContext& ctx, bool layer, bool in_place) {
    Floats y = in_place ? x : Floats(x.size());
    const ConstMatrix from = matrix(in_place ? std::as_const(y) : x, rows, columns);
    const Matrix to = matrix(y, rows, columns);
    if (layer) {
      REQUIRE(layer_norm_forward(ctx, {.x = from, .weight = weight.data(), .y = to}));
    } else {
      REQUIRE(rms_norm_forward(ctx, {.x = from, .weight = weight.data(), .y = to}));
    }
    return y;
  };
  for (const bool layer : {false, true}) {
    const auto all = [&](const auto& run) { return on_all_paths(run); };
    const Floats own =
        all([&](const OpContext& ctx) { return gradients(ctx, layer, Place::apart); });
    for (const Place place : {Place::over_dy, Place::over_residual}) {
      const auto run = [&](const OpContext& ctx) { return gradients(ctx, layer, place); };
      REQUIRE(same_bits(all(run), own));
    }
    const Floats apart = all([&](const OpContext& ctx) { return forward(ctx, layer, false); });
    const Floats in = all([&](const OpContext& ctx) { return forward(ctx, layer, true); });
    REQUIRE(same_bits(in, apart));
  }
}

TEST_CASE("silu gate: forward and gradients") {
  Golden golden("silu gate");
  for (const Shape& s : kShapes) {
    Floats gate = draw(s.rows * s.columns, 1);
    for (float& g : gate) g *= 20.0F;
    const Floats up = draw(s.rows * s.columns, 2);
    const Floats dy = draw(s.rows * s.columns, 3);
    const std::size_t size = gate.size();
    const Floats all = on_all_paths(golden, [&](const OpContext& ctx) {
      Floats out(3 * size);
      const auto part = [&](std::size_t i) {
        return Matrix(out.data() + i * size, s.rows, s.columns);
      };
      REQUIRE(silu_gate_forward(ctx, {.gate = matrix(gate, s.rows, s.columns),
                                      .up = matrix(up, s.rows, s.columns),
                                      .y = part(0)}));
      REQUIRE(silu_gate_backward(ctx, {.dy = matrix(dy, s.rows, s.columns),
                                       .gate = matrix(gate, s.rows, s.columns),
                                       .up = matrix(up, s.rows, s.columns),
                                       .dgate = part(1),
                                       .dup = part(2)}));
      return out;
    });
    const Table g(matrix(gate, s.rows, s.columns));
    const Table u(matrix(up, s.rows, s.columns));
    const Table expected = reference::silu_gate(g, u);
    REQUIRE(largest_difference(std::span(all).first(size), expected) <=
            tolerance(1, largest_magnitude(expected)));
    if (size == 0) continue;
    const auto loss_of_gate = [&](const Table& t) {
      return weighted_sum(reference::silu_gate(t, u), dy);
    };
    const auto loss_of_up = [&](const Table& t) {
      return weighted_sum(reference::silu_gate(g, t), dy);
    };
    REQUIRE(gradient_error(
                {.loss = loss_of_gate, .at = g, .gradient = std::span(all).subspan(size, size)}) <
            mean_tolerance(1));
    REQUIRE(gradient_error(
                {.loss = loss_of_up, .at = u, .gradient = std::span(all).subspan(2 * size)}) <
            mean_tolerance(1));
  }
  golden.check();
}

// For gates far below zero silu(g) = g exp(g) / (1 + exp(g)) is g exp(g) but for its last places.
TEST_CASE("silu gate: its exponential has a relative error below 2^-22 over the whole range") {
  Floats gate;
  for (float g = -85.0F; g < -1.0F; g += 0.0078F) gate.push_back(g);
  const auto size = static_cast<Index>(gate.size());
  const Floats ones(gate.size(), 1.0F);
  const Floats y = on_all_paths([&](const OpContext& ctx) {
    Floats out(gate.size());
    REQUIRE(silu_gate_forward(
        ctx,
        {.gate = matrix(gate, 1, size), .up = matrix(ones, 1, size), .y = matrix(out, 1, size)}));
    return out;
  });
  double worst = 0.0;
  for (std::size_t i = 0; i < gate.size(); ++i) {
    const auto g = static_cast<double>(gate[i]);
    const double exact = g / (1.0 + std::exp(-g));
    worst = test::larger(worst, std::abs(static_cast<double>(y[i]) / exact - 1.0));
  }
  REQUIRE(worst < 0x1p-22 + 3.0 * kUnit);  // exp; the division, the sum and the product round
}

TEST_CASE("silu gate: infinities saturate and a NaN stays a NaN") {
  const float infinity = std::numeric_limits<float>::infinity();
  const Floats gate = {-100.0F, 100.0F, infinity, std::numeric_limits<float>::quiet_NaN(), 0.0F};
  const Floats up(5, 2.0F);
  const Floats y = on_all_paths([&](const OpContext& ctx) {
    Floats out(5);
    REQUIRE(silu_gate_forward(
        ctx, {.gate = matrix(gate, 1, 5), .up = matrix(up, 1, 5), .y = matrix(out, 1, 5)}));
    return out;
  });
  REQUIRE(std::abs(y[0]) < 1e-30F);
  REQUIRE(y[1] == 200.0F);
  REQUIRE(y[2] == infinity);
  REQUIRE(std::isnan(y[3]));
  REQUIRE(y[4] == 0.0F);
}

TEST_CASE(
    "rotary: forward agrees with its meaning, backward undoes it, the rest of a head passes") {
  Golden golden("rotary");
  const Index tokens = 11;
  const std::vector<std::int32_t> positions = {0, 1, 2, 3, 100, 5000, 131071, 7, 0, 1, 2};
  for (const Index width : {2, 16, 30, 64}) {
    const Index head_width = 64;
    const std::vector<float> frequencies = rotary_frequencies({.width = width, .theta = 5e5});
    const Floats x = draw(tokens * 3 * head_width, 1);
    const auto half = width / 2;
    const Floats both = on_all_paths(golden, [&](const OpContext& ctx) {
      Floats cosine(static_cast<std::size_t>(tokens * half));
      Floats sine(cosine.size());
      REQUIRE(rotary_angles(ctx, {.positions = positions,
                                  .frequencies = frequencies,
                                  .cosine = matrix(cosine, tokens, half),
                                  .sine = matrix(sine, tokens, half)}));
      Floats turned = x;
      RotaryApply apply{.x = matrix(turned, tokens, 3 * head_width),
                        .head_width = head_width,
                        .cosine = matrix(cosine, tokens, half),
                        .sine = matrix(sine, tokens, half)};
      REQUIRE(rotary_apply(ctx, apply));
      Floats back = turned;
      apply.x = matrix(back, tokens, 3 * head_width);
      apply.direction = RotaryApply::Direction::backward;
      REQUIRE(rotary_apply(ctx, apply));
      turned.insert(turned.end(), back.begin(), back.end());
      return turned;
    });
    const Table at(matrix(x, tokens, 3 * head_width));
    const Table expected = reference::rotary(at, positions, frequencies, head_width);
    REQUIRE(largest_difference(std::span(both).first(x.size()), expected) <= tolerance(2, 2.0));
    REQUIRE(largest_difference(std::span(both).subspan(x.size()), at) <= tolerance(4, 2.0));
    for (std::size_t i = static_cast<std::size_t>(width); i < 64; ++i) REQUIRE(both[i] == x[i]);
  }
  golden.check();
}

TEST_CASE("rotary: an attention factor scales what turns, and its gradient") {
  Golden golden("rotary, an attention factor");
  constexpr Index kWidth = 30;
  constexpr Index kHeadWidth = 40;
  constexpr Index kColumns = 2 * kHeadWidth;
  constexpr float kFactor = 1.3F;
  const std::vector<std::int32_t> positions = {0, 1, 2, 3, 100, 5000, 131071};
  const auto tokens = static_cast<Index>(positions.size());
  const std::vector<float> frequencies = rotary_frequencies({.width = kWidth, .theta = 5e5});
  const Floats x = draw(tokens * kColumns, 1);
  const Floats dy = draw(tokens * kColumns, 2);
  const Floats both = on_all_paths(golden, [&](const OpContext& ctx) {
    Floats cosine(static_cast<std::size_t>(tokens * kWidth / 2));
    Floats sine(cosine.size());
    REQUIRE(rotary_angles(ctx, {.positions = positions,
                                .frequencies = frequencies,
                                .cosine = matrix(cosine, tokens, kWidth / 2),
                                .sine = matrix(sine, tokens, kWidth / 2),
                                .factor = kFactor}));
    const auto turned = [&](const Floats& from, RotaryApply::Direction direction) {
      Floats to = from;
      REQUIRE(rotary_apply(ctx, {.x = matrix(to, tokens, kColumns),
                                 .head_width = kHeadWidth,
                                 .cosine = matrix(cosine, tokens, kWidth / 2),
                                 .sine = matrix(sine, tokens, kWidth / 2),
                                 .direction = direction}));
      return to;
    };
    Floats all = turned(x, RotaryApply::Direction::forward);
    const Floats dx = turned(dy, RotaryApply::Direction::backward);
    all.insert(all.end(), dx.begin(), dx.end());
    return all;
  });
  golden.check();
  const auto meaning = [&](const Table& at) {
    Table y = reference::rotary(at, positions, frequencies, kHeadWidth);
    for (Index i = 0; i < tokens * kColumns; ++i) {
      if (i % kHeadWidth < kWidth) {
        y.data[static_cast<std::size_t>(i)] *= static_cast<double>(kFactor);
      }
    }
    return y;
  };
  const Table at(matrix(x, tokens, kColumns));
  REQUIRE(largest_difference(std::span(both).first(x.size()), meaning(at)) <=
          tolerance(3, 2.0 * static_cast<double>(kFactor)));
  REQUIRE(gradient_error({.loss = [&](const Table& t) { return weighted_sum(meaning(t), dy); },
                          .at = at,
                          .gradient = std::span(both).subspan(x.size())}) < mean_tolerance(3));
}

TEST_CASE("rotary: angles that have no cosine are refused, the last one that has is not") {
  const std::vector<float> frequencies = {1.0F, 0.5F};
  Floats cosine(4, 7.0F);
  Floats sine(4, 7.0F);
  const auto angles = [&](std::int32_t position) {
    const std::vector<std::int32_t> positions = {3, position};
    return rotary_angles(single(), {.positions = positions,
                                    .frequencies = frequencies,
                                    .cosine = matrix(cosine, 2, 2),
                                    .sine = matrix(sine, 2, 2)});
  };
  // As fp32, 2^27 - 1 is 2^27.
  for (const std::int32_t far : {-1, (1 << 27) - 1, 1 << 27, std::numeric_limits<int>::max()}) {
    const auto refused = angles(far);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == ErrorCode::invalid_argument);
  }
  CHECK(cosine == Floats(4, 7.0F));
  if (single().device != nullptr) return;  // which keeps a table of all positions before
  REQUIRE(angles((1 << 27) - 8));
  for (const float value : cosine) CHECK(std::abs(value) <= 1.0F);
}

TEST_CASE("embedding: rows are copied, and gradients add in token order") {
  Golden golden("embedding");
  const std::vector<std::int32_t> tokens = {3, 0, 3, 3, 6, 0};
  const Floats table = draw(7 * 45, 1);
  const Floats dout = draw(6 * 45, 2);
  const Floats before = draw(7 * 45, 3);
  const Floats both = on_all_paths(golden, [&](const OpContext& ctx) {
    Floats rows(6 * 45);
    REQUIRE(embedding_forward(
        ctx, {.table = matrix(table, 7, 45), .tokens = tokens, .output = matrix(rows, 6, 45)}));
    Floats dtable = before;
    REQUIRE(embedding_backward(
        ctx, {.dout = matrix(dout, 6, 45), .tokens = tokens, .dtable = matrix(dtable, 7, 45)}));
    rows.insert(rows.end(), dtable.begin(), dtable.end());
    return rows;
  });
  Floats expected(6 * 45);
  Floats sums = before;
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    for (std::size_t c = 0; c < 45; ++c) {
      const std::size_t place = static_cast<std::size_t>(tokens[t]) * 45 + c;
      expected[t * 45 + c] = table[place];
      sums[place] += dout[t * 45 + c];
    }
  }
  expected.insert(expected.end(), sums.begin(), sums.end());
  REQUIRE(same_bits(both, expected));
  golden.check();
}

TEST_CASE("embedding: rows of a table in bf16 are its numbers") {
  Golden golden("embedding, bf16");
  const std::vector<std::int32_t> tokens = {3, 0, 3, 3, 6, 0};
  const Floats values = draw(7 * 45, 1);
  std::vector<Bf16> halves(values.size());
  REQUIRE(to_bf16(single(), values, halves));
  Floats table(values.size());
  REQUIRE(from_bf16(single(), halves, table));
  const auto run = [&](const OpContext& ctx, const Bf16* bf16) {
    Floats rows(6 * 45);
    REQUIRE(embedding_forward(ctx, {.table = matrix(bf16 == nullptr ? table : values, 7, 45),
                                    .bf16 = bf16,
                                    .tokens = tokens,
                                    .output = matrix(rows, 6, 45)}));
    return rows;
  };
  const Floats rows =
      on_all_paths(golden, [&](const OpContext& ctx) { return run(ctx, halves.data()); });
  REQUIRE(same_bits(rows, run(single(), nullptr)));
  golden.check();
}

TEST_CASE("embedding: a token outside of the table is refused") {
  const std::vector<std::int32_t> tokens = {7};
  const Floats table = draw(7 * 4, 1);
  Floats rows(4);
  const auto refused = embedding_forward(
      single(), {.table = matrix(table, 7, 4), .tokens = tokens, .output = matrix(rows, 1, 4)});
  REQUIRE_FALSE(refused);
  REQUIRE(refused.error().message.find("token 7") != std::string::npos);
}

TEST_CASE("add: element by element, whatever the length") {
  Golden golden("add");
  for (const Index size : {0, 1, 15, 16, 17, 40000}) {
    const Floats a = draw(size, 1);
    const Floats b = draw(size, 2);
    const Floats sum = on_all_paths(golden, [&](const OpContext& ctx) {
      Floats result = a;
      REQUIRE(add_into(ctx, result, b));
      return result;
    });
    Floats expected = a;
    for (std::size_t i = 0; i < expected.size(); ++i) expected[i] += b[i];
    REQUIRE(same_bits(sum, expected));
  }
  golden.check();
}

TEST_CASE(
    "row ops: the comparison catches a norm with a wrong mean and a gate with a wrong slope") {
  const Floats x = draw(4 * 64, 1);
  const Floats weight = draw(64, 2);
  Floats y = norm(single(), x, weight, 4).y;
  for (float& value : y) value *= std::sqrt(63.0F / 64.0F);
  const Table expected = reference::rms_norm(Table(matrix(x, 4, 64)), widened(weight), 1e-5);
  REQUIRE(largest_difference(y, expected) > tolerance(64, largest_magnitude(expected)));

  const Floats dy = draw(4 * 64, 3);
  Floats slope(4 * 64);
  for (std::size_t i = 0; i < slope.size(); ++i) {
    const float s = 1.0F / (1.0F + std::exp(-x[i]));
    slope[i] = dy[i] * s;  // forgets that silu(g) = g s has two factors
  }
  const Table ones(matrix(Floats(4 * 64, 1.0F), 4, 64));
  const auto loss = [&](const Table& t) { return weighted_sum(reference::silu_gate(t, ones), dy); };
  REQUIRE(gradient_error({.loss = loss, .at = Table(matrix(x, 4, 64)), .gradient = slope}) >
          mean_tolerance(1));
}

}  // namespace tutti::kernels::parity
