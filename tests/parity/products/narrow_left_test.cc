// bf16 activations by quantised weights: the bits of fp32 activations of the same values.
#include <limits>
#include <string>

#include "kernels/ops/weights/product_quantised_nn.h"
#include "kernels/ops/weights/quantised_weight.h"
#include "tests/parity/harness.h"
#include "tests/parity/products/halves.h"

namespace tutti::kernels::parity {
namespace {

struct Shape {
  Index m, n, k;  // k in blocks of 256
};
// One row, the kernels' heights, more rows than are widened together, and none.
const Shape kShapes[] = {{1, 1, 1},    {1, 70, 3}, {4, 64, 2},  {5, 33, 1},
                         {300, 20, 1}, {0, 5, 1},  {13, 130, 2}};

std::size_t size_of(Index count) { return static_cast<std::size_t>(count); }

std::vector<Activations> meanings_of(WeightFormat format) {
  if (!has_integer_codes(format)) return {Activations::exact};
  return {Activations::exact, Activations::int8};
}

// Rows at an odd stride, so that no row but the first is aligned.
struct Case {
  Case(WeightFormat format_in, const Shape& s)
      : format(format_in),
        shape{s.m, s.n, s.k * 256},
        stride(shape.k + 3),
        halves(rounded(draw(shape.m * stride, 1))),
        weight(draw(shape.n * shape.k, 2)),
        before(draw(shape.m * shape.n, 3)) {}

  QuantisedWeight packed(const OpContext& ctx) const {
    auto made = quantise_weight(ctx, format, matrix(weight, shape.n, shape.k));
    REQUIRE(made);
    return *std::move(made);
  }
  BasicMatrix<const Bf16> narrow_left() const { return {halves.data(), shape.m, shape.k, stride}; }

  WeightFormat format;
  Shape shape;
  Index stride;
  Halves halves;
  Floats weight, before;
};

// Both forms, one after the other.
Floats of_both(const OpContext& ctx, const Case& c, Activations activations,
               const QuantisedProduct& ends) {
  const Floats wide = widened(c.halves);
  const QuantisedWeight packed = c.packed(ctx);
  const auto product = [&](bool narrow) {
    Floats output = c.before;
    QuantisedProduct args = ends;
    if (narrow) {
      args.narrow_left = c.narrow_left();
    } else {
      args.left = {wide.data(), c.shape.m, c.shape.k, c.stride};
    }
    args.right = &packed;
    args.output = matrix(output, c.shape.m, c.shape.n);
    args.activations = activations;
    args.start = ChainStart::output;
    REQUIRE(product_quantised(ctx, args));
    return output;
  };
  const Floats narrow = product(true);
  const Floats plain = product(false);
  for (std::size_t i = 0; i < plain.size(); ++i) {
    // Which NaN comes out is not promised.
    const bool same = std::isnan(plain[i])
                          ? std::isnan(narrow[i])
                          : same_bits(std::span(&plain[i], 1), std::span(&narrow[i], 1));
    REQUIRE(same);
  }
  return narrow;
}

}  // namespace

TEST_CASE("narrow left: bf16 activations give the bits of their values in fp32, on all paths") {
  Golden golden("product quantised, bf16 activations");
  for (const WeightFormat format : kWeightFormats) {
    for (const Shape& shape : kShapes) {
      const Case c(format, shape);
      for (const Activations activations : meanings_of(format)) {
        INFO(to_string(format) << " " << shape.m << " x " << shape.n << " x " << c.shape.k);
        on_all_paths(golden, [&](const OpContext& ctx) {
          return of_both(ctx, c, activations, {.left = {}, .output = {}});
        });
      }
    }
  }
  golden.check();
}

TEST_CASE("narrow left: ends, and an output in bf16, follow as they follow fp32 activations") {
  for (const WeightFormat format : kWeightFormats) {
    const Case c(format, {270, 40, 1});
    const Floats bias = draw(40, 4);
    const Floats residual = draw(270 * 40, 5);
    const Floats gate = draw(270 * 40, 6);
    for (const Activations activations : meanings_of(format)) {
      INFO(to_string(format));
      const QuantisedProduct ends{.left = {},
                                  .output = {},
                                  .bias = bias.data(),
                                  .residual = matrix(residual, 270, 40),
                                  .activation = Activation::silu,
                                  .gate = matrix(gate, 270, 40)};
      on_all_paths([&](const OpContext& ctx) { return of_both(ctx, c, activations, ends); });
      const Floats narrow = on_all_paths([&](const OpContext& ctx) {
        const QuantisedWeight packed = c.packed(ctx);
        Halves out(c.before.size());
        QuantisedProduct args = ends;
        args.narrow_left = c.narrow_left();
        args.right = &packed;
        args.activations = activations;
        args.narrow = {out.data(), 270, 40};
        REQUIRE(product_quantised(ctx, args));
        return widened(out);
      });
      const QuantisedWeight packed = c.packed(single());
      Floats wide(c.before.size());
      QuantisedProduct args = ends;
      args.narrow_left = c.narrow_left();
      args.right = &packed;
      args.activations = activations;
      args.output = matrix(wide, 270, 40);
      REQUIRE(product_quantised(single(), args));
      REQUIRE(same_bits(narrow, widened(rounded(wide))));
    }
  }
}

TEST_CASE("narrow left: what is not finite, huge or denormal is what it is in fp32") {
  for (const WeightFormat format : kWeightFormats) {
    Case c(format, {5, 40, 2});
    c.halves[3] = 0x7fc1;                            // a NaN
    c.halves[size_of(c.stride) + 7] = 0xff80;        // minus infinity
    c.halves[size_of(2 * c.stride) + 300] = 0x7f7f;  // the largest
    for (Index k = 0; k < c.shape.k; ++k) {
      c.halves[size_of(3 * c.stride + k)] = static_cast<Bf16>(k % 7);  // denormal numbers and zeros
    }
    for (const Activations activations : meanings_of(format)) {
      INFO(to_string(format));
      const Floats result = on_all_paths([&](const OpContext& ctx) {
        Floats output = of_both(ctx, c, activations, {.left = {}, .output = {}});
        for (float& value : output) {
          if (std::isnan(value)) value = std::numeric_limits<float>::quiet_NaN();
        }
        return output;
      });
      for (std::size_t o = 0; o < 40; ++o) {
        CHECK(std::isnan(result[o]));
        CHECK_FALSE(std::isnan(result[4 * 40 + o]));
      }
    }
  }
}

TEST_CASE("narrow left: the gradient to the inputs takes bf16 too") {
  Golden golden("product quantised, nn of bf16");
  for (const WeightFormat format : kWeightFormats) {
    for (const Shape& shape : {Shape{1, 40, 1}, Shape{7, 530, 1}, Shape{0, 9, 1}}) {
      const Case c(format, shape);
      const Floats residual = draw(shape.m * c.shape.k, 4);
      const Halves halves = rounded(draw(shape.m * (shape.n + 1), 5));
      const Floats wide = widened(halves);
      INFO(to_string(format) << " " << shape.m << " x " << shape.n);
      on_all_paths(golden, [&](const OpContext& ctx) {
        const QuantisedWeight packed = c.packed(ctx);
        Floats narrow(residual.size());
        Floats plain(residual.size());
        QuantisedProductNn args{.left = {wide.data(), shape.m, shape.n, shape.n + 1},
                                .right = &packed,
                                .output = matrix(plain, shape.m, c.shape.k),
                                .residual = matrix(residual, shape.m, c.shape.k)};
        REQUIRE(product_quantised_nn(ctx, args));
        args.left = {};
        args.narrow_left = {halves.data(), shape.m, shape.n, shape.n + 1};
        args.output = matrix(narrow, shape.m, c.shape.k);
        if (shape.m > 0) REQUIRE(product_quantised_nn(ctx, args));
        REQUIRE(same_bits(narrow, plain));
        return narrow;
      });
    }
  }
  golden.check();
}

TEST_CASE("narrow left: the comparison catches activations that were cut, not widened") {
  const Case c(WeightFormat::q8_0, {3, 20, 1});
  const QuantisedWeight packed = c.packed(single());
  Floats output(60);
  REQUIRE(product_quantised(single(), {.left = {},
                                       .right = &packed,
                                       .output = matrix(output, 3, 20),
                                       .narrow_left = c.narrow_left()}));
  // The lowest bit of one number lost.
  Halves cut = c.halves;
  for (Bf16& half : cut) half &= 0xfffe;
  Floats wrong(60);
  REQUIRE(product_quantised(single(), {.left = {},
                                       .right = &packed,
                                       .output = matrix(wrong, 3, 20),
                                       .narrow_left = {cut.data(), 3, 256, c.stride}}));
  REQUIRE_FALSE(same_bits(output, wrong));
}

TEST_CASE("narrow left: both operands, or one that does not match, are refused") {
  const Case c(WeightFormat::q8_0, {3, 20, 1});
  const QuantisedWeight packed = c.packed(single());
  const Floats wide = widened(c.halves);
  Floats output(60, 7.0F);
  const QuantisedProduct args{.left = {},
                              .right = &packed,
                              .output = matrix(output, 3, 20),
                              .narrow_left = c.narrow_left()};
  const auto refused = [&](auto change) {
    QuantisedProduct wrong = args;
    change(wrong);
    const auto result = product_quantised(single(), wrong);
    return !result && result.error().code == ErrorCode::invalid_argument;
  };
  CHECK(refused([&](QuantisedProduct& p) { p.left = {wide.data(), 3, 256}; }));
  CHECK(refused([](QuantisedProduct& p) { p.narrow_left.columns = 255; }));
  CHECK(refused([](QuantisedProduct& p) { p.narrow_left.rows = 2; }));
  CHECK(refused([](QuantisedProduct& p) { p.narrow_left.stride = 255; }));
  CHECK(refused([](QuantisedProduct& p) { p.right = nullptr; }));
  CHECK(output == Floats(60, 7.0F));
}

}  // namespace tutti::kernels::parity
