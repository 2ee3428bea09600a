// The fused ends of products: the bits of the ops that they stand for, one after the other.
#include <limits>
#include <string>

#include "kernels/ops/product_bf16.h"
#include "kernels/ops/reference/rows.h"
#include "kernels/ops/weights/packed_weight.h"
#include "kernels/ops/weights/quantised_weight.h"
#include "tests/parity/harness.h"
#include "tests/parity/products/halves.h"
#include "tests/support/skip.h"

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

struct Form {
  const char* name;
  Result<> (*fp32)(const OpContext&, const Product&);
  Result<> (*bf16)(const OpContext&, const Bf16Product&);
  bool left_turned;   // stored [k][row]
  bool right_turned;  // stored [column][k]
};
const Form kForms[] = {{"nt", product_nt, product_bf16_nt, false, true},
                       {"nn", product_nn, product_bf16_nn, false, false},
                       {"tn", product_tn, product_bf16_tn, true, false}};

struct Case {
  explicit Case(const Shape& s, const Form& form_in = kForms[0])
      : form(form_in),
        shape(s),
        x(draw(s.m * s.k, 1)),
        w(draw(s.n * s.k, 2)),
        bias(draw(s.n, 3)),
        residual(draw(s.m * s.n, 4)),
        gate(draw(s.m * s.n, 5)),
        before(draw(s.m * s.n, 6)) {
    for (float& value : gate) value *= 6.0F;
  }

  template <class Of>
  BasicMatrix<const Of> left_of(const std::vector<Of>& data) const {
    return form.left_turned ? BasicMatrix<const Of>(data.data(), shape.k, shape.m)
                            : BasicMatrix<const Of>(data.data(), shape.m, shape.k);
  }
  template <class Of>
  BasicMatrix<const Of> right_of(const std::vector<Of>& data) const {
    return form.right_turned ? BasicMatrix<const Of>(data.data(), shape.n, shape.k)
                             : BasicMatrix<const Of>(data.data(), shape.k, shape.n);
  }
  Product product() const {
    return {.left = left_of(x),
            .right = right_of(w),
            .output = {},
            .bias = bias.data(),
            .residual = matrix(residual, shape.m, shape.n)};
  }
  Bf16Product product_of(const Halves& left, const Halves& right, Bf16Arithmetic arithmetic) const {
    return {.left = left_of(left),
            .right = right_of(right),
            .output = {},
            .arithmetic = arithmetic,
            .bias = bias.data(),
            .residual = matrix(residual, shape.m, shape.n)};
  }
  Matrix out(Floats& y) const { return matrix(y, shape.m, shape.n); }
  Floats room() const { return before; }

  Result<> call(const OpContext& ctx, const Product& args) const { return form.fp32(ctx, args); }
  Result<> call(const OpContext& ctx, const Bf16Product& args) const {
    return form.bf16(ctx, args);
  }
  template <class Args>
  Floats run(const OpContext& ctx, Args args) const {
    Floats y = room();
    args.output = out(y);
    REQUIRE(call(ctx, args));
    return y;
  }
  template <class Args>
  Halves run_narrow(const OpContext& ctx, Args args) const {
    Halves halves(before.size());
    if (halves.empty()) return halves;  // without memory there is no output in bf16
    args.output = {};
    args.narrow = {halves.data(), shape.m, shape.n};
    REQUIRE(call(ctx, args));
    return halves;
  }

  // The finished chains of a product, and behind them each end by itself.
  template <class Args>
  Floats sequence(const OpContext& ctx, Args args, Activation kind, bool gated) const {
    args.bias = nullptr;
    args.residual = {};
    Floats sum = run(ctx, args);
    for (std::size_t i = 0; i < sum.size(); ++i) {
      sum[i] = sum[i] + bias[i % size_of(shape.n)] + residual[i];
    }
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
  Floats sequence(const OpContext& ctx, Activation kind, bool gated) const {
    return sequence(ctx, product(), kind, gated);
  }
  template <class Args>
  Args ended(Args args, Activation kind, bool gated) const {
    args.activation = kind;
    if (gated) args.gate = matrix(gate, shape.m, shape.n);
    return args;
  }
  Floats fused(const OpContext& ctx, Activation kind, bool gated) const {
    return run(ctx, ended(product(), kind, gated));
  }

  Form form;
  Shape shape;
  Floats x, w, bias, residual, gate, before;
};

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

TEST_CASE("product ends: nn and tn, from zero and from what their output holds, in fp32 and bf16") {
  Golden golden("product, fused ends of nn and tn");
  for (const Form& form : kForms) {
    if (form.right_turned) continue;
    for (const Shape& shape : kShapes) {
      const Case c(shape, form);
      for (const bool gated : {false, true}) {
        INFO(form.name << " " << shape.m << " x " << shape.n << " x " << shape.k
                       << (gated ? " gated" : ""));
        Product args = c.ended(c.product(), Activation::gelu, gated);
        const Floats from_zero = c.sequence(single(), c.product(), Activation::gelu, gated);
        REQUIRE(same_bits(on_all_paths([&](const OpContext& ctx) { return c.run(ctx, args); }),
                          from_zero));
        REQUIRE(same_bits(
            on_all_paths([&](const OpContext& ctx) { return widened(c.run_narrow(ctx, args)); }),
            widened(rounded(from_zero))));
        Product plain = c.product();
        args.start = plain.start = ChainStart::output;
        REQUIRE(
            same_bits(on_all_paths(golden, [&](const OpContext& ctx) { return c.run(ctx, args); }),
                      c.sequence(single(), plain, Activation::gelu, gated)));
      }
    }
  }
  golden.check();
}

namespace {

// One arithmetic's products, whose finished sums product_bf16_test compares with their order.
void check_bf16(Bf16Arithmetic arithmetic, const OpContext& ctx) {
  for (const Form& form : kForms) {
    for (const Shape& shape : kShapes) {
      const Case c(shape, form);
      const Halves x = rounded(c.x);
      const Halves w = rounded(c.w);
      for (const ChainStart start : {ChainStart::zero, ChainStart::output}) {
        Bf16Product plain = c.product_of(x, w, arithmetic);
        plain.start = start;
        for (const bool gated : {false, true}) {
          INFO(profile_of(arithmetic) << " " << form.name << " " << shape.m << " x " << shape.n
                                      << " x " << shape.k << (gated ? " gated" : ""));
          const Bf16Product args = c.ended(plain, Activation::gelu_tanh, gated);
          const Floats apart = c.sequence(single(), plain, Activation::gelu_tanh, gated);
          REQUIRE(same_bits(c.run(ctx, args), apart));
          if (start == ChainStart::output) continue;  // an output in bf16 begins at zero
          REQUIRE(c.run_narrow(ctx, args) == rounded(apart));
        }
      }
    }
  }
}

}  // namespace

TEST_CASE("product ends: of bf16 operands in every form, by every arithmetic") {
  on_all_paths([](const OpContext& ctx) {
    check_bf16(Bf16Arithmetic::widened, ctx);
    return Floats{};
  });
  for (const Bf16Arithmetic arithmetic : {Bf16Arithmetic::native, Bf16Arithmetic::tiles}) {
    if (!has_bf16(arithmetic)) {
      test::skip_part("this machine has no " + std::string(profile_of(arithmetic)));
      continue;
    }
    for (const int threads : {1, 2, 3, 4, 7}) {
      ThreadPool pool(threads);
      check_bf16(arithmetic, {.pool = &pool});
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

TEST_CASE("product ends: by a packed image and by quantised weights") {
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
      const Halves x = rounded(c.x);
      const Halves w = rounded(c.w);
      Case wide = c;
      wide.x = widened(x);
      wide.w = widened(w);
      const Floats of_bf16 = wide.sequence(single(), Activation::gelu_tanh, gated);
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
