// Batches of products: the bits of separate calls, whatever is shared or interleaved.
#include "kernels/ops/product_batched.h"

#include <limits>

#include "tests/parity/harness.h"
#include "tests/parity/products/halves.h"
#include "tests/support/skip.h"

namespace tutti::kernels::parity {
namespace {

struct Shape {
  Index count, m, n, k;
};
// Few large ones and many small ones, odd sizes, and empty ones.
const Shape kShapes[] = {{1, 5, 7, 9},     {3, 400, 33, 20}, {2, 30, 700, 65}, {40, 17, 15, 64},
                         {13, 64, 48, 31}, {0, 3, 4, 5},     {4, 0, 5, 3},     {4, 5, 0, 3},
                         {3, 6, 5, 0},     {2, 257, 260, 3}};
constexpr ProductForm kForms[] = {ProductForm::nt, ProductForm::nn, ProductForm::tn};

Result<> product(const OpContext& ctx, ProductForm form, const Product& args) {
  switch (form) {
    case ProductForm::nt: return product_nt(ctx, args);
    case ProductForm::nn: return product_nn(ctx, args);
    case ProductForm::tn: return product_tn(ctx, args);
  }
  return {};
}

struct Case {
  Case(ProductForm form_in, const Shape& s)
      : form(form_in),
        shape(s),
        left(draw(s.count * s.m * s.k, 1)),
        right(draw(s.count * s.n * s.k, 2)),
        before(draw(s.count * s.m * s.n, 3)) {}

  BatchedProduct batch(Floats& output, ChainStart start) const {
    const bool turned = form == ProductForm::tn;
    return {.form = form,
            .count = shape.count,
            .left = turned ? matrix(left, shape.k, shape.m) : matrix(left, shape.m, shape.k),
            .left_step = shape.m * shape.k,
            .right = form == ProductForm::nt ? matrix(right, shape.n, shape.k)
                                             : matrix(right, shape.k, shape.n),
            .right_step = shape.n * shape.k,
            .output = matrix(output, shape.m, shape.n),
            .output_step = shape.m * shape.n,
            .start = start};
  }

  ProductForm form;
  Shape shape;
  Floats left, right, before;
};

// The same by separate calls.
void one_by_one(const BatchedProduct& batch) {
  for (Index b = 0; b < batch.count; ++b) {
    Product args{
        .left = batch.left, .right = batch.right, .output = batch.output, .start = batch.start};
    args.left.data += b * batch.left_step;
    args.right.data += b * batch.right_step;
    args.output.data += b * batch.output_step;
    REQUIRE(product(single(), batch.form, args));
  }
}

}  // namespace

TEST_CASE("product batched: the bits of separate calls, on all paths and thread counts") {
  Golden golden("product, batched");
  for (const ProductForm form : kForms) {
    for (const Shape& shape : kShapes) {
      for (const ChainStart start : {ChainStart::zero, ChainStart::output}) {
        const Case c(form, shape);
        INFO(static_cast<int>(form)
             << ": " << shape.count << " of " << shape.m << " x " << shape.n << " x " << shape.k);
        const Floats batched = on_all_paths(golden, [&](const OpContext& ctx) {
          Floats output = c.before;
          REQUIRE(product_batched(ctx, c.batch(output, start)));
          return output;
        });
        Floats separate = c.before;
        one_by_one(c.batch(separate, start));
        REQUIRE(same_bits(batched, separate));
      }
    }
  }
  golden.check();
}

namespace {

// What ends a batch: of each product its own bias and gate, one residual for all.
struct BatchEnds {
  explicit BatchEnds(const Shape& s)
      : bias(draw(s.count * s.n, 4)),
        residual(draw(s.m * s.n, 5)),
        gate(draw(s.count * s.m * s.n, 6)),
        shape(s) {}

  template <class Batch>
  Batch of(Batch batch) const {
    batch.bias = bias.data();
    batch.bias_step = shape.n;
    batch.residual = matrix(residual, shape.m, shape.n);
    batch.activation = Activation::silu;
    batch.gate = matrix(gate, shape.m, shape.n);
    batch.gate_step = shape.m * shape.n;
    return batch;
  }
  template <class Args>
  Args of_one(Args args, Index b) const {
    args.bias = bias.data() + b * shape.n;
    args.residual = matrix(residual, shape.m, shape.n);
    args.activation = Activation::silu;
    args.gate = {gate.data() + b * shape.m * shape.n, shape.m, shape.n};
    return args;
  }

  Floats bias, residual, gate;
  Shape shape;
};

// The batch of a case with its operands in bf16.
struct Bf16Case {
  Bf16Case(ProductForm form, const Shape& s)
      : fp32(form, s), left(rounded(fp32.left)), right(rounded(fp32.right)) {}

  Bf16BatchedProduct batch(Floats& output, ChainStart start) const {
    const BatchedProduct wide = fp32.batch(output, start);
    return {.form = wide.form,
            .count = wide.count,
            .left = {left.data(), wide.left.rows, wide.left.columns},
            .left_step = wide.left_step,
            .right = {right.data(), wide.right.rows, wide.right.columns},
            .right_step = wide.right_step,
            .output = wide.output,
            .output_step = wide.output_step,
            .start = start};
  }
  // Product b, alone.
  static Bf16Product one(const Bf16BatchedProduct& batch, Index b) {
    Bf16Product args{.left = batch.left,
                     .right = batch.right,
                     .output = batch.output,
                     .arithmetic = batch.arithmetic,
                     .start = batch.start};
    args.left.data += b * batch.left_step;
    args.right.data += b * batch.right_step;
    args.output.data += b * batch.output_step;
    return args;
  }
  static Result<> run_one(ProductForm form, const Bf16Product& args) {
    switch (form) {
      case ProductForm::nt: return product_bf16_nt(single(), args);
      case ProductForm::nn: return product_bf16_nn(single(), args);
      case ProductForm::tn: return product_bf16_tn(single(), args);
    }
    return {};
  }

  Case fp32;
  Halves left, right;
};

}  // namespace

TEST_CASE("product batched: ends are those of separate calls, in fp32 and in bf16") {
  Golden golden("product, batched, fused ends");
  for (const ProductForm form : kForms) {
    for (const Shape& shape : kShapes) {
      const Case c(form, shape);
      const BatchEnds ends(shape);
      INFO(static_cast<int>(form) << ": " << shape.count << " of " << shape.m << " x " << shape.n
                                  << " x " << shape.k);
      const Floats batched = on_all_paths(golden, [&](const OpContext& ctx) {
        Floats output = c.before;
        REQUIRE(product_batched(ctx, ends.of(c.batch(output, ChainStart::output))));
        return output;
      });
      Floats separate = c.before;
      const BatchedProduct batch = c.batch(separate, ChainStart::output);
      for (Index b = 0; b < batch.count; ++b) {
        Product one{
            .left = batch.left, .right = batch.right, .output = batch.output, .start = batch.start};
        one.left.data += b * batch.left_step;
        one.right.data += b * batch.right_step;
        one.output.data += b * batch.output_step;
        REQUIRE(product(single(), form, ends.of_one(one, b)));
      }
      REQUIRE(same_bits(batched, separate));
      if (separate.empty()) continue;  // without memory there is no output in bf16
      const Floats narrow = on_all_paths([&](const OpContext& ctx) {
        Floats none;
        Halves halves(c.before.size());
        BatchedProduct args = ends.of(c.batch(none, ChainStart::zero));
        args.output = {};
        args.narrow = {halves.data(), shape.m, shape.n};
        REQUIRE(product_batched(ctx, args));
        return widened(halves);
      });
      Floats from_zero(c.before.size());
      REQUIRE(product_batched(single(), ends.of(c.batch(from_zero, ChainStart::zero))));
      REQUIRE(same_bits(narrow, widened(rounded(from_zero))));
    }
  }
  golden.check();
}

TEST_CASE("product batched: of bf16 operands, the bits of separate calls, ends included") {
  Golden golden("product, batched, of bf16");
  for (const ProductForm form : kForms) {
    for (const Shape& shape : kShapes) {
      const Bf16Case c(form, shape);
      const BatchEnds ends(shape);
      INFO(static_cast<int>(form) << ": " << shape.count << " of " << shape.m << " x " << shape.n
                                  << " x " << shape.k);
      for (const bool ended : {false, true}) {
        const Floats batched = on_all_paths(golden, [&](const OpContext& ctx) {
          Floats output = c.fp32.before;
          const Bf16BatchedProduct batch = c.batch(output, ChainStart::output);
          REQUIRE(product_bf16_batched(ctx, ended ? ends.of(batch) : batch));
          return output;
        });
        Floats separate = c.fp32.before;
        const Bf16BatchedProduct batch = c.batch(separate, ChainStart::output);
        for (Index b = 0; b < batch.count; ++b) {
          const Bf16Product one = Bf16Case::one(batch, b);
          REQUIRE(Bf16Case::run_one(form, ended ? ends.of_one(one, b) : one));
        }
        REQUIRE(same_bits(batched, separate));
      }
    }
  }
  golden.check();
}

TEST_CASE("product batched: of bf16 operands by native instructions, for any number of threads") {
  const CpuPath before = cpu_path();
  if (!choose_cpu_path(CpuPath::avx512bf16)) {
    return test::skip("this machine has no native bf16 products");
  }
  for (const auto arithmetic : {Bf16Arithmetic::native, Bf16Arithmetic::tiles}) {
    if (!has_bf16(arithmetic)) continue;
    for (const ProductForm form : kForms) {
      for (const Shape& shape : kShapes) {
        const Bf16Case c(form, shape);
        Floats separate = c.fp32.before;
        Bf16BatchedProduct batch = c.batch(separate, ChainStart::output);
        batch.arithmetic = arithmetic;
        for (Index b = 0; b < batch.count; ++b) {
          REQUIRE(Bf16Case::run_one(form, Bf16Case::one(batch, b)));
        }
        for (const int threads : {1, 2, 3, 4, 7}) {
          ThreadPool pool(threads);
          Floats output = c.fp32.before;
          batch.output = c.batch(output, ChainStart::output).output;
          REQUIRE(product_bf16_batched({.pool = &pool}, batch));
          REQUIRE(same_bits(output, separate));
        }
      }
    }
  }
  REQUIRE(choose_cpu_path(before));
}

TEST_CASE("product batched: heads side by side, and one right operand for all") {
  // Scores of three heads of width 16: bands of one matrix by one key matrix.
  const Floats q = draw(20 * 48, 1);
  const Floats k = draw(30 * 16, 2);
  const auto batch = [&](Floats& scores) {
    return BatchedProduct{.count = 3,
                          .left = matrix(q, 20, 48).column_range(0, 16),
                          .left_step = 16,
                          .right = matrix(k, 30, 16),
                          .output = matrix(scores, 20, 90).column_range(0, 30),
                          .output_step = 30};
  };
  Floats separate(20 * 90);
  one_by_one(batch(separate));
  const Floats batched = on_all_paths([&](const OpContext& ctx) {
    Floats scores(20 * 90);
    REQUIRE(product_batched(ctx, batch(scores)));
    return scores;
  });
  REQUIRE(same_bits(batched, separate));
}

TEST_CASE("product batched: the comparison catches a product that reads its neighbour") {
  const Case c(ProductForm::nt, {4, 9, 10, 11});
  Floats batched(c.before.size());
  BatchedProduct wrong = c.batch(batched, ChainStart::zero);
  wrong.left_step = 0;
  REQUIRE(product_batched(single(), wrong));
  Floats separate(c.before.size());
  one_by_one(c.batch(separate, ChainStart::zero));
  REQUIRE_FALSE(same_bits(batched, separate));

  const Bf16Case half(ProductForm::nt, {4, 9, 10, 11});
  Bf16BatchedProduct wrong_half = half.batch(batched, ChainStart::zero);
  wrong_half.right_step = 0;
  REQUIRE(product_bf16_batched(single(), wrong_half));
  Floats right(c.before.size());
  REQUIRE(product_bf16_batched(single(), half.batch(right, ChainStart::zero)));
  REQUIRE_FALSE(same_bits(batched, right));
}

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// A NaN in product 1, row 0; of product 2 numbers in row 3 and column 0 whose product overflows,
// and an infinity in row 4.
struct SpoiledCase : Bf16Case {
  static constexpr Shape kShape{3, 5, 20, 9};

  explicit SpoiledCase(ProductForm form) : Bf16Case(form, kShape) {
    const auto left_at = [&](Index b, Index row, Index k) -> Bf16& {
      const Index place = form == ProductForm::tn ? k * kShape.m + row : row * kShape.k + k;
      return left[static_cast<std::size_t>(b * kShape.m * kShape.k + place)];
    };
    const Bf16 huge = rounded({3e38F}).front();
    left_at(1, 0, 4) = rounded({kNan}).front();
    left_at(2, 3, 0) = huge;
    left_at(2, 4, 8) = rounded({std::numeric_limits<float>::infinity()}).front();
    right[static_cast<std::size_t>(2 * kShape.n * kShape.k)] = huge;  // k 0 of column 0 in any form
  }
};

// Outputs of the spoiled case beside those of the good one.
void check_spoiled(const Floats& bad, const Floats& good) {
  for (std::size_t i = 0; i < bad.size(); ++i) {
    const std::size_t row = i / 20;
    const std::size_t column = i % 20;
    INFO("row " << row << ", column " << column);
    if (row == 5) {
      CHECK(std::isnan(bad[i]));
    } else if (row == 14) {
      CHECK_FALSE(std::isfinite(bad[i]));
    } else if (row == 13 && column == 0) {
      CHECK(bad[i] == std::numeric_limits<float>::infinity());
    } else if (row == 13 || (row >= 10 && column == 0)) {
      CHECK(std::isfinite(bad[i]));
    } else {
      CHECK(bad[i] == good[i]);
    }
  }
}

}  // namespace

TEST_CASE("product batched: what is not finite stays in its product and rows, in every form") {
  const CpuPath before = cpu_path();
  for (const ProductForm form : kForms) {
    INFO("form " << static_cast<int>(form));
    const SpoiledCase spoiled(form);
    const Bf16Case whole(form, SpoiledCase::kShape);
    const auto run = [&](const OpContext& ctx, const Bf16Case& c, Bf16Arithmetic arithmetic) {
      Floats output(c.fp32.before.size());
      Bf16BatchedProduct batch = c.batch(output, ChainStart::zero);
      batch.arithmetic = arithmetic;
      REQUIRE(product_bf16_batched(ctx, batch));
      return one_nan(std::move(output));
    };
    const auto run_widened = [&](const Bf16Case& c) {
      return on_all_paths(
          [&](const OpContext& ctx) { return run(ctx, c, Bf16Arithmetic::widened); });
    };
    check_spoiled(run_widened(spoiled), run_widened(whole));
    if (!choose_cpu_path(CpuPath::avx512bf16)) continue;
    for (const auto arithmetic : {Bf16Arithmetic::native, Bf16Arithmetic::tiles}) {
      if (!has_bf16(arithmetic)) continue;
      for (const int threads : {1, 3}) {
        ThreadPool pool(threads);
        check_spoiled(run({.pool = &pool}, spoiled, arithmetic),
                      run({.pool = &pool}, whole, arithmetic));
      }
    }
    REQUIRE(choose_cpu_path(before));
  }
}

TEST_CASE("product batched: what does not match is refused and nothing is written") {
  for (const ProductForm form : kForms) {
    const Case c(form, {3, 4, 5, 6});
    Floats output(60, 3.0F);
    const auto refused = [&](const auto& change) {
      BatchedProduct args = c.batch(output, ChainStart::zero);
      change(args);
      const auto result = product_batched(single(), args);
      return !result && result.error().code == ErrorCode::invalid_argument;
    };
    CHECK(refused([](BatchedProduct& args) { args.output_step = 0; }));
    CHECK(refused([](BatchedProduct& args) { args.count = -1; }));
    CHECK(refused([](BatchedProduct& args) { args.output.columns = 4; }));
    CHECK(refused([](BatchedProduct& args) { args.right = {args.right.data, 2, 2}; }));
    CHECK(refused([](BatchedProduct& args) { args.residual = {args.left.data, 1, 2}; }));
    CHECK(refused([](BatchedProduct& args) { args.gate = args.output; }));
    const Bf16Case half(form, {3, 4, 5, 6});
    Bf16BatchedProduct args = half.batch(output, ChainStart::zero);
    args.output_step = 0;
    CHECK_FALSE(product_bf16_batched(single(), args));
    args = half.batch(output, ChainStart::zero);
    args.left.columns -= 1;
    CHECK_FALSE(product_bf16_batched(single(), args));
    CHECK(output == Floats(60, 3.0F));
  }
}

}  // namespace tutti::kernels::parity
