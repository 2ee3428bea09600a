// Ops over rows that are cut for the threads: each over as many rows that its loops are seen to be
// shared, and norms in place, over more rows than one span of them holds.
#include "kernels/tensor/shared_loops.h"

#include "kernels/cpu/quant/activations.h"
#include "kernels/ops/add.h"
#include "kernels/ops/elementwise/dropout.h"
#include "kernels/ops/elementwise/layer_norm.h"
#include "kernels/ops/embedding.h"
#include "kernels/ops/product.h"
#include "kernels/ops/rms_norm.h"
#include "kernels/ops/rotary.h"
#include "kernels/ops/weights/product_int8.h"
#include "tests/parity/harness.h"

namespace tutti::kernels::parity {
namespace {

std::size_t size_of(Index count) { return static_cast<std::size_t>(count); }

// `loops` that the op is required to share where there are threads to share them with.
Floats shared_on_all_paths(std::uint64_t loops, const std::function<Floats(const OpContext&)>& op) {
  return on_all_paths([&](const OpContext& ctx) {
    const std::uint64_t before = shared_loops();
    Floats result = op(ctx);
    const std::uint64_t after = shared_loops();
    REQUIRE(after - before >= (ctx.pool->threads() > 1 ? loops : 0));
    return result;
  });
}

Floats with_codes(Floats all, std::span<const std::int8_t> codes) {
  for (const std::int8_t code : codes) all.push_back(static_cast<float>(code));
  return all;
}

// A thread holds 170 such rows at once, all together 2,730.
constexpr Index kRows = 1000;
constexpr Index kColumns = 192;

// Where dx lies.
enum class Place { own, dy, residual };

// dx and the sums over rows of a norm's backward pass; run(dy, residual, dx, sums).
template <class Run>
void require_same_in_place(const Run& run) {
  const Floats dy = draw(kRows * kColumns, 3);
  const Floats residual = draw(kRows * kColumns, 4);
  const auto gradients = [&](Place place) {
    return shared_on_all_paths(2, [&](const OpContext& ctx) {
      Floats of[] = {Floats(dy.size()), dy, residual};
      Floats& dx = of[static_cast<std::size_t>(place)];
      Floats sums = draw(2 * kColumns, 5);  // continued
      run(ctx, matrix(std::as_const(of[1]), kRows, kColumns),
          matrix(std::as_const(of[2]), kRows, kColumns), matrix(dx, kRows, kColumns), sums.data());
      dx.insert(dx.end(), sums.begin(), sums.end());
      return dx;
    });
  };
  const Floats own = gradients(Place::own);
  CHECK(same_bits(gradients(Place::dy), own));
  CHECK(same_bits(gradients(Place::residual), own));
}

}  // namespace

TEST_CASE("shared loops: a loop of several pieces counts, one of one piece does not") {
  ThreadPool alone(1);
  ThreadPool two(2);
  const std::uint64_t before = shared_loops();
  const auto nothing = [](int, Index, Index) {};
  alone.parallel_for(9, 1, nothing);
  two.parallel_for(9, 9, nothing);
  two.parallel_for(0, 1, nothing);
  CHECK(shared_loops() == before);
  two.parallel_for(9, 8, nothing);
  CHECK(shared_loops() == before + 1);
}

TEST_CASE("shared loops: rms norm backward over several spans, in place of dy or the residual") {
  const Floats x = draw(kRows * kColumns, 1);
  const Floats weight = draw(kColumns, 2);
  Floats y(x.size());
  Floats inverse(size_of(kRows));
  REQUIRE(rms_norm_forward(single(), {.x = matrix(x, kRows, kColumns),
                                      .weight = weight.data(),
                                      .y = matrix(y, kRows, kColumns),
                                      .inverse = inverse.data()}));
  require_same_in_place(
      [&](const OpContext& ctx, ConstMatrix dy, ConstMatrix residual, Matrix dx, float* sums) {
        REQUIRE(rms_norm_backward(ctx, {.dy = dy,
                                        .x = matrix(x, kRows, kColumns),
                                        .weight = weight.data(),
                                        .inverse = inverse.data(),
                                        .dx = dx,
                                        .dweight = sums,
                                        .residual = residual}));
      });
}

TEST_CASE("shared loops: layer norm backward over several spans, in place of dy or the residual") {
  const Floats x = draw(kRows * kColumns, 1);
  const Floats weight = draw(kColumns, 2);
  Floats y(x.size());
  Floats mean(size_of(kRows));
  Floats inverse(size_of(kRows));
  REQUIRE(layer_norm_forward(single(), {.x = matrix(x, kRows, kColumns),
                                        .weight = weight.data(),
                                        .y = matrix(y, kRows, kColumns),
                                        .mean = mean.data(),
                                        .inverse = inverse.data()}));
  require_same_in_place(
      [&](const OpContext& ctx, ConstMatrix dy, ConstMatrix residual, Matrix dx, float* sums) {
        REQUIRE(layer_norm_backward(ctx, {.dy = dy,
                                          .x = matrix(x, kRows, kColumns),
                                          .weight = weight.data(),
                                          .mean = mean.data(),
                                          .inverse = inverse.data(),
                                          .dx = dx,
                                          .dweight = sums,
                                          .dbias = sums + kColumns,
                                          .residual = residual}));
      });
}

TEST_CASE("shared loops: sums of columns, dropout, rotary, embedding, rows of int8") {
  const Index rows = 300;
  const Index columns = 203;
  const Floats x = draw(rows * columns, 1);
  const ConstMatrix from = matrix(x, rows, columns);
  shared_on_all_paths(1, [&](const OpContext& ctx) {
    Floats sums(size_of(columns));
    REQUIRE(column_sums(ctx, {.x = from, .output = sums.data()}));
    return sums;
  });
  shared_on_all_paths(1, [&](const OpContext& ctx) {
    Floats y(x.size());
    REQUIRE(dropout(ctx, {{1, 2}, 30, 0.5, from, matrix(y, rows, columns)}));
    return y;
  });
  shared_on_all_paths(1, [&](const OpContext& ctx) {
    Floats scales(size_of(rows));
    std::vector<std::int8_t> codes(x.size());
    REQUIRE(to_int8_rows(
        ctx,
        {.x = from, .codes = {codes.data(), rows, columns}, .scales = matrix(scales, rows, 1)}));
    return with_codes(scales, codes);
  });
  for (const ScaleBy by : {ScaleBy::cell, ScaleBy::row}) {
    shared_on_all_paths(1, [&](const OpContext& ctx) {
      const ArenaScope scope(ctx.pool->op_scratch());
      const Int8Rows some = quantise_activations(ctx, from, by);
      const auto cells = size_of(rows * some.cells);
      return with_codes(Floats(some.scales, some.scales + cells), {some.codes, cells * kCell});
    });
  }
  std::vector<std::int32_t> tokens(size_of(rows));
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<std::int32_t>(i * 37 % 100);
  }
  shared_on_all_paths(1, [&](const OpContext& ctx) {
    Floats y(x.size());
    REQUIRE(embedding_forward(
        ctx,
        {.table = from.row_range(0, 100), .tokens = tokens, .output = matrix(y, rows, columns)}));
    return y;
  });
  const std::vector<float> frequencies = rotary_frequencies({.width = 32});
  shared_on_all_paths(2, [&](const OpContext& ctx) {
    Floats cosine(size_of(rows * 16));
    Floats sine(cosine.size());
    REQUIRE(rotary_angles(ctx, {.positions = tokens,
                                .frequencies = frequencies,
                                .cosine = matrix(cosine, rows, 16),
                                .sine = matrix(sine, rows, 16)}));
    Floats turned = draw(rows * 96, 2);
    REQUIRE(rotary_apply(ctx, {.x = matrix(turned, rows, 96),
                               .head_width = 32,
                               .cosine = matrix(cosine, rows, 16),
                               .sine = matrix(sine, rows, 16)}));
    return turned;
  });
}

}  // namespace tutti::kernels::parity
