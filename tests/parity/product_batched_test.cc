// Batches of products: the bits of separate calls, whatever is shared or interleaved.
#include "kernels/ops/product_batched.h"
#include "tests/parity/harness.h"

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
    CHECK(output == Floats(60, 3.0F));
  }
}

}  // namespace tutti::kernels::parity
