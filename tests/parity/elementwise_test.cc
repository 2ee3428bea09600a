// Layer norm, activations, gates, softmax, dropout, bf16: against their meaning, with gradients
// against finite differences.
#include <limits>
#include <numeric>

#include "kernels/ops/add.h"
#include "kernels/ops/elementwise/bf16.h"
#include "kernels/ops/elementwise/dropout.h"
#include "kernels/ops/elementwise/layer_norm.h"
#include "kernels/ops/elementwise/softmax.h"
#include "kernels/ops/reference/rows.h"
#include "kernels/ops/rms_norm.h"
#include "tests/parity/harness.h"

namespace tutti::kernels::parity {
namespace {

struct Shape {
  Index rows, columns;
};
const Shape kShapes[] = {{0, 8}, {1, 1}, {3, 15}, {5, 16}, {7, 33}, {90, 192}};
const Activation kKinds[] = {Activation::gelu, Activation::gelu_tanh, Activation::silu,
                             Activation::relu};
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<double> widened(const Floats& values) { return {values.begin(), values.end()}; }

struct Norm {
  Floats y, mean, inverse;
};

Norm layer_norm(const OpContext& ctx, const Floats& x, const Floats& weight, const Floats& bias) {
  const auto columns = static_cast<Index>(weight.size());
  const Index rows = static_cast<Index>(x.size()) / columns;
  Norm n{Floats(x.size()), Floats(static_cast<std::size_t>(rows)),
         Floats(static_cast<std::size_t>(rows))};
  REQUIRE(layer_norm_forward(ctx, {.x = matrix(x, rows, columns),
                                   .weight = weight.data(),
                                   .bias = bias.empty() ? nullptr : bias.data(),
                                   .y = matrix(n.y, rows, columns),
                                   .mean = n.mean.data(),
                                   .inverse = n.inverse.data()}));
  return n;
}

}  // namespace

TEST_CASE("layer norm: forward agrees with its meaning, also around a large mean") {
  Golden golden("layer norm forward");
  Golden statistics("layer norm forward, statistics");
  for (const Shape& s : kShapes) {
    Floats x = draw(s.rows * s.columns, 1);
    for (std::size_t i = 0; i < x.size(); i += 3) x[i] += 1000.0F;
    const Floats weight = draw(s.columns, 2);
    const Floats bias = s.columns % 2 == 0 ? draw(s.columns, 3) : Floats();
    const Floats all = on_all_paths([&](const OpContext& ctx) {
      Norm n = layer_norm(ctx, x, weight, bias);
      n.y.insert(n.y.end(), n.mean.begin(), n.mean.end());
      n.y.insert(n.y.end(), n.inverse.begin(), n.inverse.end());
      return std::move(n.y);
    });
    const auto y = std::span(all).first(x.size());
    golden.add(y);
    statistics.add(std::span(all).subspan(x.size()));
    const std::vector<double> w = widened(weight);
    const std::vector<double> b = widened(bias);
    const Table expected =
        reference::layer_norm(Table(matrix(x, s.rows, s.columns)), {.weight = w, .bias = b});
    // The mean of numbers near 1,000 errs by that much, before it is divided by a deviation of 500.
    REQUIRE(largest_difference(y, expected) <=
            tolerance(s.columns, largest_magnitude(expected) + 3.0));
  }
  golden.check();
  statistics.check();
}

TEST_CASE("layer norm: gradients agree with finite differences, and continue over calls") {
  Golden golden("layer norm backward");
  const Index rows = 9;
  const Index columns = 37;
  const Floats x = draw(rows * columns, 1);
  const Floats weight = draw(columns, 2);
  const Floats bias = draw(columns, 3);
  const Floats dy = draw(rows * columns, 4);
  const Floats residual = draw(rows * columns, 5);
  const Norm forward = layer_norm(single(), x, weight, bias);
  const Floats all = on_all_paths(golden, [&](const OpContext& ctx) {
    Floats out(x.size() + 2 * weight.size());
    float* const dweight = out.data() + x.size();
    for (const Shape& piece : {Shape{0, 4}, Shape{4, rows - 4}}) {
      const auto part = [&](const Floats& from) {
        return matrix(from, rows, columns).row_range(piece.rows, piece.columns);
      };
      REQUIRE(layer_norm_backward(
          ctx, {.dy = part(dy),
                .x = part(x),
                .weight = weight.data(),
                .mean = forward.mean.data() + piece.rows,
                .inverse = forward.inverse.data() + piece.rows,
                .dx = Matrix(out.data(), rows, columns).row_range(piece.rows, piece.columns),
                .dweight = dweight,
                .dbias = dweight + columns,
                .residual = part(residual)}));
    }
    return out;
  });
  const Table at(matrix(x, rows, columns));
  const auto loss = [&](const Table& t, const std::vector<double>& w,
                        const std::vector<double>& b) {
    return weighted_sum(reference::layer_norm(t, {.weight = w, .bias = b}), dy) +
           weighted_sum(t, residual);
  };
  const std::vector<double> w = widened(weight);
  const std::vector<double> b = widened(bias);
  const std::span gradients(all);
  REQUIRE(gradient_error({.loss = [&](const Table& t) { return loss(t, w, b); },
                          .at = at,
                          .gradient = gradients.first(x.size())}) < mean_tolerance(rows + columns));
  REQUIRE(gradient_error({.loss = [&](const Table& t) { return loss(at, t.data, b); },
                          .at = Table(matrix(weight, 1, columns)),
                          .gradient = gradients.subspan(x.size(), weight.size())}) <
          mean_tolerance(rows + columns));
  REQUIRE(gradient_error({.loss = [&](const Table& t) { return loss(at, w, t.data); },
                          .at = Table(matrix(bias, 1, columns)),
                          .gradient = gradients.last(weight.size())}) <
          mean_tolerance(rows + columns));
  golden.check();
}

TEST_CASE("layer norm: the comparison catches a norm that leaves the mean in") {
  Floats x = draw(4 * 33, 1);
  for (float& value : x) value += 1.0F;
  const Floats weight(33, 1.0F);
  Floats y(x.size());
  REQUIRE(rms_norm_forward(
      single(), {.x = matrix(x, 4, 33), .weight = weight.data(), .y = matrix(y, 4, 33)}));
  const std::vector<double> w = widened(weight);
  const Table expected = reference::layer_norm(Table(matrix(x, 4, 33)), {.weight = w, .bias = {}});
  REQUIRE(largest_difference(y, expected) > 100.0 * tolerance(33, largest_magnitude(expected)));
}

TEST_CASE("activations: forward and gradients, alone and as gates") {
  Golden golden("activations");
  for (const Activation kind : kKinds) {
    for (const Shape& s : kShapes) {
      Floats x = draw(s.rows * s.columns, 1);
      for (float& value : x) value *= 6.0F;
      const Floats up = draw(s.rows * s.columns, 2);
      const Floats dy = draw(s.rows * s.columns, 3);
      const std::size_t size = x.size();
      const ConstMatrix in = matrix(x, s.rows, s.columns);
      const ConstMatrix ups = matrix(up, s.rows, s.columns);
      const ConstMatrix dys = matrix(dy, s.rows, s.columns);
      const Floats all = on_all_paths(golden, [&](const OpContext& ctx) {
        Floats out(5 * size);
        const auto part = [&](std::size_t i) {
          return Matrix(out.data() + i * size, s.rows, s.columns);
        };
        REQUIRE(activation_forward(ctx, {.kind = kind, .x = in, .y = part(0)}));
        REQUIRE(activation_backward(ctx, {.kind = kind, .dy = dys, .x = in, .dx = part(1)}));
        REQUIRE(gate_forward(ctx, {.kind = kind, .gate = in, .up = ups, .y = part(2)}));
        REQUIRE(gate_backward(
            ctx,
            {.kind = kind, .dy = dys, .gate = in, .up = ups, .dgate = part(3), .dup = part(4)}));
        return out;
      });
      const Table at(in);
      const Table expected = reference::activation(kind, at);
      const std::span bits(all);
      REQUIRE(largest_difference(bits.first(size), expected) <= activation_tolerance(6.0));
      REQUIRE(
          largest_difference(bits.subspan(2 * size, size), reference::gate(kind, at, Table(ups))) <=
          activation_tolerance(6.0));
      if (size == 0) continue;
      const auto alone = [&](const Table& t) {
        return weighted_sum(reference::activation(kind, t), dy);
      };
      const auto of_gate = [&](const Table& t) {
        return weighted_sum(reference::gate(kind, t, Table(ups)), dy);
      };
      const auto of_up = [&](const Table& t) {
        return weighted_sum(reference::gate(kind, at, t), dy);
      };
      REQUIRE(gradient_error({.loss = alone, .at = at, .gradient = bits.subspan(size, size)}) <
              mean_tolerance(1));
      REQUIRE(
          gradient_error({.loss = of_gate, .at = at, .gradient = bits.subspan(3 * size, size)}) <
          mean_tolerance(1));
      REQUIRE(gradient_error({.loss = of_up, .at = Table(ups), .gradient = bits.last(size)}) <
              mean_tolerance(1));
    }
  }
  golden.check();
}

TEST_CASE("activations: every fp32 number of a wide range is near its value; the ends are exact") {
  Floats x;
  for (float v = -9.0F; v < 9.0F; v += 0.0007F) x.push_back(v);
  for (const float v : {0.0F, -0.0F, 1e-30F, -1e-30F, 100.0F, -100.0F, kInfinity, kNan}) {
    x.push_back(v);
  }
  const auto size = static_cast<Index>(x.size());
  for (const Activation kind : kKinds) {
    const Floats y = on_all_paths([&](const OpContext& ctx) {
      Floats out(x.size());
      REQUIRE(activation_forward(ctx, {kind, matrix(x, 1, size), matrix(out, 1, size)}));
      return out;
    });
    for (std::size_t i = 0; i + 2 < x.size(); ++i) {
      const double exact = reference::activation(kind, static_cast<double>(x[i]));
      REQUIRE(std::abs(static_cast<double>(y[i]) - exact) <=
              activation_tolerance(static_cast<double>(x[i])));
    }
    REQUIRE(y[x.size() - 2] == kInfinity);
    REQUIRE(std::isnan(y.back()) == (kind != Activation::relu));
  }
}

TEST_CASE("softmax: forward, gradient, huge and unseen scores") {
  Golden golden("softmax");
  for (const Shape& s : kShapes) {
    Floats x = draw(s.rows * s.columns, 1);
    for (float& value : x) value *= 20.0F;
    const Floats dy = draw(s.rows * s.columns, 2);
    const Floats all = on_all_paths(golden, [&](const OpContext& ctx) {
      Floats out(2 * x.size());
      const Matrix y(out.data(), s.rows, s.columns);
      REQUIRE(softmax_forward(ctx, {matrix(x, s.rows, s.columns), y}));
      REQUIRE(softmax_backward(ctx, {.dy = matrix(dy, s.rows, s.columns),
                                     .y = y,
                                     .dx = {out.data() + x.size(), s.rows, s.columns}}));
      return out;
    });
    const Table at(matrix(x, s.rows, s.columns));
    REQUIRE(largest_difference(std::span(all).first(x.size()), reference::softmax(at)) <=
            tolerance(s.columns, 1.0) + tolerance(0, 40.0));
    if (x.size() <= 1) continue;
    const auto loss = [&](const Table& t) { return weighted_sum(reference::softmax(t), dy); };
    REQUIRE(gradient_error({.loss = loss, .at = at, .gradient = std::span(all).subspan(x.size())}) <
            mean_tolerance(s.columns));
  }
  golden.check();
  Floats x = {3e38F, -kInfinity, 3e38F, -3e38F, kNan, 0.0F};
  REQUIRE(softmax_forward(single(), {matrix(x, 2, 3), matrix(x, 2, 3)}));
  REQUIRE(x[0] == 0.5F);
  REQUIRE(x[1] == 0.0F);
  REQUIRE(std::isnan(x[4]));
}

TEST_CASE("dropout: keeps its share, and a row's mask is its own wherever it stands") {
  Golden golden("dropout");
  const Index rows = 40;
  const Index columns = 203;
  const Floats x(static_cast<std::size_t>(rows * columns), 1.0F);
  Dropout args;
  args.key = {5, purpose_of("dropout of a test")};
  args.first_row = 1000;
  args.rate = 0.25;
  const Floats whole = on_all_paths(golden, [&](const OpContext& ctx) {
    Floats y(x.size());
    args.x = matrix(x, rows, columns);
    args.y = matrix(y, rows, columns);
    REQUIRE(dropout(ctx, args));
    return y;
  });
  golden.check();
  const double kept = std::accumulate(whole.begin(), whole.end(), 0.0) * 0.75;
  // Five deviations of a binomial share.
  REQUIRE(std::abs(kept / static_cast<double>(x.size()) - 0.75) <
          5.0 * std::sqrt(0.25 * 0.75 / static_cast<double>(x.size())));
  for (const float value : whole) REQUIRE((value == 0.0F || value == 1.0F / 0.75F));
  Floats row(203);
  args.x = matrix(x, rows, columns).row_range(0, 1);
  args.y = matrix(row, 1, columns);
  args.first_row = 1017;
  REQUIRE(dropout(single(), args));
  REQUIRE(same_bits(row, std::span(whole).subspan(17 * 203, 203)));
  const std::array<std::uint32_t, 4> words = random_words(args.key, 1017 * 203 / 8 + 1);
  const std::size_t first = (1017 * 203 / 8 + 1) * 8 - 1017 * 203;
  REQUIRE((row[first + 2] != 0.0F) == ((words[1] & 0xffffU) >= 16384));
  for (const double refused : {1.0, 0.9999999, -0.1, std::nan("")}) {
    args.rate = refused;
    REQUIRE_FALSE(dropout(single(), args));
  }
}

TEST_CASE("dropout: a rate between two of its steps is scaled by the share that it drops") {
  const Floats x(4096, 1.0F);
  for (const double rate : {0.0, 1e-6, 0.1, 0.3, 0.99999}) {
    Floats y(x.size());
    REQUIRE(dropout(single(), {{1, 2}, 0, rate, matrix(x, 1, 4096), matrix(y, 1, 4096)}));
    const double dropped = std::floor(rate * 65536.0 + 0.5);
    const auto scale = static_cast<float>(65536.0 / (65536.0 - dropped));
    for (const float value : y) REQUIRE((value == 0.0F || value == scale));
    if (dropped == 0.0) REQUIRE(y == x);
  }
}

TEST_CASE("bf16: rounds to the nearest, ties to even, and by chance without bias") {
  Floats x = draw(70000, 1);
  const float special[] = {1.0F + 0x1p-8F,
                           1.0F + 3 * 0x1p-8F,
                           1.0F + 0x1p-8F + 0x1p-20F,
                           0x1p-140F,
                           3.4e38F,
                           kInfinity,
                           -kInfinity,
                           kNan};
  std::copy(std::begin(special), std::end(special), x.begin());
  const auto back = [](const std::vector<Bf16>& from) {
    Floats wide(from.size());
    REQUIRE(from_bf16(single(), from, wide));
    return wide;
  };
  const Floats nearest = on_all_paths([&](const OpContext& ctx) {
    std::vector<Bf16> to(x.size());
    REQUIRE(to_bf16(ctx, x, to));
    return back(to);
  });
  REQUIRE(nearest[0] == 1.0F);
  REQUIRE(nearest[1] == 1.0F + 0x1p-6F);
  REQUIRE(nearest[2] == 1.0F + 0x1p-7F);
  REQUIRE(nearest[4] == kInfinity);
  REQUIRE(nearest[5] == kInfinity);
  REQUIRE(nearest[6] == -kInfinity);
  REQUIRE(std::isnan(nearest[7]));
  for (std::size_t i = 8; i < x.size(); ++i) {
    REQUIRE(std::abs(nearest[i] - x[i]) <= std::abs(x[i]) * 0x1p-8F);
  }
  Golden golden("stochastic bf16");
  std::fill(x.begin() + 8, x.end(), 1.0F + 0x1p-9F);  // a quarter of a step above 1
  const Floats drawn = on_all_paths(golden, [&](const OpContext& ctx) {
    std::vector<Bf16> to(x.size());
    REQUIRE(to_bf16_stochastic(
        ctx, {{3, 4}, 77, std::span(x).first(40000), std::span(to).first(40000)}));
    REQUIRE(to_bf16_stochastic(
        ctx, {{3, 4}, 40077, std::span(x).subspan(40000), std::span(to).subspan(40000)}));
    Floats wide = back(to);
    wide[7] = 0.0F;  // a NaN has no bits to agree on
    return wide;
  });
  golden.check();
  double up = 0.0;
  for (std::size_t i = 8; i < x.size(); ++i) up += drawn[i] > 1.0F ? 1.0 : 0.0;
  REQUIRE(std::abs(up / 69992.0 - 0.25) < 5.0 * std::sqrt(0.25 * 0.75 / 69992.0));
}

TEST_CASE(
    "tree sum: the tree rule in one pass, shards that do not exist skipped, in place or not") {
  Golden golden("tree sum");
  for (const std::size_t count : {1U, 2U, 8U, 64U}) {
    for (const Index size : {0, 1, 2500}) {
      for (const std::size_t missing : {100U, 0U, 1U, 5U}) {  // and every one seven later
        std::vector<Floats> data(count);
        std::vector<std::span<const float>> parts(count);
        for (std::size_t i = 0; i < count; ++i) {
          if (i % 7 != missing) data[i] = draw(size, i);
          parts[i] = data[i];
        }
        const Floats sum = on_all_paths(golden, [&](const OpContext& ctx) {
          Floats out(static_cast<std::size_t>(size), 7.0F);
          REQUIRE(tree_sum(ctx, {parts, out}));
          return out;
        });
        std::vector<Floats> level = data;
        while (level.size() > 1) {
          for (std::size_t i = 0; i < level.size() / 2; ++i) {
            Floats& left = level[2 * i];
            Floats& right = level[2 * i + 1];
            if (!left.empty() && !right.empty()) REQUIRE(add_into(single(), left, right));
            level[i] = left.empty() ? right : left;
          }
          level.resize(level.size() / 2);
        }
        Floats expected = level[0];
        expected.resize(static_cast<std::size_t>(size));
        REQUIRE(same_bits(sum, expected));
        if (!data[0].empty()) {
          REQUIRE(tree_sum(single(), {parts, data[0]}));
          REQUIRE(same_bits(data[0], expected));
        }
      }
    }
  }
  golden.check();
  Floats five(5);
  const std::vector<std::span<const float>> three(3);
  REQUIRE_FALSE(tree_sum(single(), {three, five}));
}

TEST_CASE("element-wise ops: matrices that differ in shape are refused") {
  Floats a(6);
  const Matrix two = matrix(a, 2, 3);
  const Matrix three = matrix(a, 3, 2);
  REQUIRE_FALSE(layer_norm_forward(single(), {.x = two, .weight = a.data(), .y = three}));
  REQUIRE_FALSE(
      layer_norm_backward(single(), {.dy = two, .x = two, .weight = a.data(), .dx = two}));
  REQUIRE_FALSE(activation_forward(single(), {.x = two, .y = three}));
  REQUIRE_FALSE(activation_backward(single(), {.dy = two, .x = two, .dx = three}));
  REQUIRE_FALSE(gate_forward(single(), {.gate = two, .up = three, .y = two}));
  REQUIRE_FALSE(
      gate_backward(single(), {.dy = two, .gate = two, .up = two, .dgate = two, .dup = three}));
  REQUIRE_FALSE(softmax_forward(single(), {two, three}));
  REQUIRE_FALSE(softmax_backward(single(), {two, two, three}));
  std::vector<Bf16> b(5);
  REQUIRE_FALSE(to_bf16(single(), a, b));
  REQUIRE_FALSE(from_bf16(single(), b, a));
}

}  // namespace tutti::kernels::parity
