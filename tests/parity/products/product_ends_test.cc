// The fused ends of products: the bits of the ops that they stand for, one after the other.
#include <limits>
#include <optional>

#include "kernels/ops/product_bf16.h"
#include "kernels/ops/reference/rows.h"
#include "kernels/ops/weights/packed_weight.h"
#include "kernels/ops/weights/quantised_weight.h"
#include "tests/parity/harness.h"

namespace tutti::kernels::parity {
namespace {

struct Shape {
  Index m, n, k;
};
const Shape kShapes[] = {{1, 1, 1},    {0, 5, 3},   {5, 0, 3},      {5, 3, 0},     {1, 70, 33},
                         {3, 47, 100}, {8, 64, 64}, {33, 65, 1030}, {300, 37, 20}, {70, 130, 19}};
const Activation kKinds[] = {Activation::gelu, Activation::gelu_tanh, Activation::silu,
                             Activation::relu};
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::size_t size_of(Index count) { return static_cast<std::size_t>(count); }

struct Case {
  explicit Case(const Shape& s)
      : shape(s),
        x(draw(s.m * s.k, 1)),
        w(draw(s.n * s.k, 2)),
        bias(draw(s.n, 3)),
        residual(draw(s.m * s.n, 4)),
        gate(draw(s.m * s.n, 5)) {
    for (float& value : gate) value *= 6.0F;
  }

  Product product() const {
    return {.left = matrix(x, shape.m, shape.k),
            .right = matrix(w, shape.n, shape.k),
            .output = {},
            .bias = bias.data(),
            .residual = matrix(residual, shape.m, shape.n)};
  }
  Matrix out(Floats& y) const { return matrix(y, shape.m, shape.n); }
  Floats room() const { return Floats(residual.size()); }

  // The ops in sequence, after a product with bias and residual.
  Floats sequence(const OpContext& ctx, Activation kind, bool gated) const {
    Floats sum = room();
    Product plain = product();
    plain.output = out(sum);
    REQUIRE(product_nt(ctx, plain));
    Floats y = room();
    const ConstMatrix sums = out(sum);
    if (gated) {
      REQUIRE(gate_forward(
          ctx, {.kind = kind, .gate = matrix(gate, shape.m, shape.n), .up = sums, .y = out(y)}));
    } else {
      REQUIRE(activation_forward(ctx, {.kind = kind, .x = sums, .y = out(y)}));
    }
    return y;
  }
  template <class Args>
  Args ended(Args args, Activation kind, bool gated) const {
    args.activation = kind;
    if (gated) args.gate = matrix(gate, shape.m, shape.n);
    return args;
  }
  Floats fused(const OpContext& ctx, Activation kind, bool gated) const {
    Floats y = room();
    Product args = ended(product(), kind, gated);
    args.output = out(y);
    REQUIRE(product_nt(ctx, args));
    return y;
  }

  Shape shape;
  Floats x, w, bias, residual, gate;
};

// bf16 numbers as fp32.
Floats widened(const std::vector<Bf16>& halves) {
  Floats wide(halves.size());
  REQUIRE(from_bf16(single(), halves, wide));
  return wide;
}

std::vector<Bf16> rounded(const Floats& values) {
  std::vector<Bf16> halves(values.size());
  REQUIRE(to_bf16(single(), values, halves));
  return halves;
}

}  // namespace

TEST_CASE("product ends: activation and gate have the bits of their ops, on all paths") {
  Golden golden("product, fused ends");
  for (const Shape& shape : kShapes) {
    const Case c(shape);
    for (const Activation kind : kKinds) {
      for (const bool gated : {false, true}) {
        INFO(shape.m << " x " << shape.n << " x " << shape.k << " kind " << static_cast<int>(kind)
                     << (gated ? " gated" : ""));
        const Floats fused =
            on_all_paths(golden, [&](const OpContext& ctx) { return c.fused(ctx, kind, gated); });
        REQUIRE(same_bits(fused, c.sequence(single(), kind, gated)));
      }
    }
  }
  golden.check();
}

TEST_CASE("product ends: they agree with their meaning in double precision") {
  const Case c({33, 65, 300});
  Table sums(33, 65);
  double magnitude = 0.0;
  for (Index r = 0; r < 33; ++r) {
    for (Index n = 0; n < 65; ++n) {
      double sum = 0.0;
      double sizes = 2.0;  // bias and residual
      for (Index k = 0; k < 300; ++k) {
        const double term = static_cast<double>(c.x[size_of(r * 300 + k)]) *
                            static_cast<double>(c.w[size_of(n * 300 + k)]);
        sum += term;
        sizes += std::abs(term);
      }
      sums.at(r, n) = sum + static_cast<double>(c.bias[size_of(n)]) +
                      static_cast<double>(c.residual[size_of(r * 65 + n)]);
      magnitude = std::max(magnitude, sizes);
    }
  }
  const Table gates(matrix(c.gate, 33, 65));
  for (const Activation kind : kKinds) {
    // No activation is steeper than 1.13; a gate, up to 6, scales what its factor errs by.
    const double own = activation_tolerance(magnitude);
    REQUIRE(largest_difference(c.fused(single(), kind, false), reference::activation(kind, sums)) <=
            1.13 * tolerance(300, magnitude) + own);
    REQUIRE(largest_difference(c.fused(single(), kind, true), reference::gate(kind, gates, sums)) <=
            6.0 * tolerance(300, magnitude) + 6.0 * own);
  }
}

TEST_CASE("product ends: NaN, infinities and huge sums end as their ops end them") {
  Case c({7, 33, 40});
  c.x[0] = kNan;
  c.x[41] = kInfinity;
  c.x[85] = 3e38F;
  c.w[3] = -3e38F;
  c.residual[4 * 33 + 1] = -kInfinity;
  c.residual[5 * 33 + 2] = 1e30F;
  c.gate[6 * 33] = kInfinity;
  c.gate[6 * 33 + 1] = -kInfinity;
  for (const Activation kind : kKinds) {
    for (const bool gated : {false, true}) {
      const Floats fused =
          on_all_paths([&](const OpContext& ctx) { return c.fused(ctx, kind, gated); });
      REQUIRE(same_bits(fused, c.sequence(single(), kind, gated)));
    }
  }
}

TEST_CASE("product ends: bf16 output is the rounded fp32 output, in every form of product") {
  const auto forms = {product_nt, product_nn, product_tn};
  for (const Shape& shape : {Shape{1, 33, 17}, {9, 70, 1030}, {300, 20, 31}, {5, 3, 0}}) {
    const Case c(shape);
    for (const auto& form : forms) {
      const bool left_turned = form == product_tn;
      const bool right_turned = form == product_nt;
      Product args = c.ended(c.product(), Activation::gelu, true);
      if (left_turned) args.left = matrix(c.x, shape.k, shape.m);
      if (!right_turned) args.right = matrix(c.w, shape.k, shape.n);
      Floats wide = c.room();
      args.output = c.out(wide);
      REQUIRE(form(single(), args));
      const Floats narrow = on_all_paths([&](const OpContext& ctx) {
        std::vector<Bf16> halves(wide.size());
        Product rounding = args;
        rounding.output = {};
        rounding.narrow = {halves.data(), shape.m, shape.n};
        REQUIRE(form(ctx, rounding));
        return widened(halves);
      });
      REQUIRE(same_bits(narrow, widened(rounded(wide))));
    }
  }
}

TEST_CASE("product ends: a band of a wider output and of a wider gate, and nothing beside it") {
  const Case c({20, 24, 50});
  const Floats gates = draw(20 * 60, 9);
  const Floats before = draw(20 * 50, 8);
  const auto run = [&](const OpContext& ctx, bool fuses) {
    Floats y = before;
    const Matrix band = matrix(y, 20, 50).column_range(13, 24);
    const ConstMatrix gate = matrix(gates, 20, 60).column_range(5, 24);
    Product args = c.product();
    args.output = band;
    if (fuses) {
      args.activation = Activation::silu;
      args.gate = gate;
    }
    REQUIRE(product_nt(ctx, args));
    if (!fuses) {
      REQUIRE(gate_forward(ctx, {.kind = Activation::silu, .gate = gate, .up = band, .y = band}));
    }
    return y;
  };
  REQUIRE(same_bits(on_all_paths([&](const OpContext& ctx) { return run(ctx, true); }),
                    run(single(), false)));
}

TEST_CASE("product ends: by a packed image, by bf16 operands and by quantised weights") {
  for (const Index rows : {1, 3, 5, 40}) {
    const Case c({rows, 70, 64});
    for (const bool gated : {false, true}) {
      const Floats expected = c.sequence(single(), Activation::silu, gated);
      REQUIRE(same_bits(on_all_paths([&](const OpContext& ctx) {
                          const auto packed = pack_weight({.pool = ctx.pool}, matrix(c.w, 70, 64));
                          REQUIRE(packed);
                          Floats y = c.room();
                          Product args = c.ended(c.product(), Activation::silu, gated);
                          args.output = c.out(y);
                          args.packed = &*packed;
                          REQUIRE(product_nt(ctx, args));
                          return y;
                        }),
                        expected));

      // The same operands in bf16, so that what is not fused may be a product of fp32.
      const std::vector<Bf16> x = rounded(c.x);
      const std::vector<Bf16> w = rounded(c.w);
      Case wide = c;
      wide.x = widened(x);
      wide.w = widened(w);
      const Floats of_bf16 = wide.sequence(single(), Activation::gelu_tanh, gated);
      const auto by_bf16 = [&](const OpContext& ctx) {
        Floats y = c.room();
        Bf16Product args{.left = {x.data(), rows, 64},
                         .right = {w.data(), 70, 64},
                         .output = c.out(y),
                         .bias = c.bias.data(),
                         .residual = matrix(c.residual, rows, 70)};
        REQUIRE(product_bf16_nt(ctx, c.ended(args, Activation::gelu_tanh, gated)));
        std::vector<Bf16> halves(y.size());
        args.output = {};
        args.narrow = {halves.data(), rows, 70};
        REQUIRE(product_bf16_nt(ctx, c.ended(args, Activation::gelu_tanh, gated)));
        REQUIRE(halves == rounded(y));
        return y;
      };
      REQUIRE(same_bits(on_all_paths(by_bf16), of_bf16));
      const auto by_image = [&](const OpContext& ctx) {
        const auto weight =
            quantise_weight({.pool = ctx.pool}, WeightFormat::bf16, matrix(wide.w, 70, 64));
        REQUIRE(weight);
        Floats y = c.room();
        const QuantisedProduct args{.left = matrix(wide.x, rows, 64),
                                    .right = &*weight,
                                    .output = c.out(y),
                                    .activations = Activations::exact,
                                    .bias = c.bias.data(),
                                    .residual = matrix(c.residual, rows, 70)};
        REQUIRE(product_quantised(ctx, c.ended(args, Activation::gelu_tanh, gated)));
        return y;
      };
      REQUIRE(same_bits(on_all_paths(by_image), of_bf16));
    }
  }
}

TEST_CASE("product ends: the comparison catches an activation that comes before the residual") {
  const Case c({9, 20, 30});
  Floats y = c.room();
  Product args = c.product();
  args.output = c.out(y);
  args.residual = {};
  args.activation = Activation::gelu;
  REQUIRE(product_nt(single(), args));
  for (std::size_t i = 0; i < y.size(); ++i) y[i] += c.residual[i];
  REQUIRE_FALSE(same_bits(y, c.sequence(single(), Activation::gelu, false)));
}

TEST_CASE("product ends: what does not match is refused and nothing is written") {
  const Case c({4, 5, 6});
  Floats y(20, 3.0F);
  std::vector<Bf16> halves(20, 7);
  const auto refused = [&](const auto& change) {
    Product args = c.product();
    args.output = matrix(y, 4, 5);
    change(args);
    const auto result = product_nt(single(), args);
    return !result && result.error().code == ErrorCode::invalid_argument;
  };
  CHECK(refused([&](Product& args) { args.gate = matrix(c.gate, 4, 5); }));
  CHECK(refused([&](Product& args) {
    args.activation = Activation::silu;
    args.gate = matrix(c.gate, 5, 4);
  }));
  CHECK(refused([&](Product& args) { args.narrow = {halves.data(), 4, 5}; }));
  CHECK(refused([&](Product& args) {
    args.output = {};
    args.narrow = {halves.data(), 5, 4};
  }));
  CHECK(refused([&](Product& args) {
    args.output = {};
    args.narrow = {halves.data(), 4, 5};
    args.start = ChainStart::output;
  }));
  CHECK(refused([&](Product& args) {
    args.output = {};
    args.narrow = {nullptr, 4, 5};
  }));
  CHECK(y == Floats(20, 3.0F));
  CHECK(halves == std::vector<Bf16>(20, 7));
}

}  // namespace tutti::kernels::parity
