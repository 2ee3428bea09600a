// Products that are computed in several blocks: rows that no cache holds at once, distant rows that
// are copied, operands cut by k. Some rows of each against the same rows alone, which no block
// cuts.
#include "kernels/ops/product.h"
#include "kernels/ops/weights/quantised_weight.h"
#include "tests/parity/harness.h"
#include "tests/parity/other_caches.h"

namespace tutti::kernels::parity {
namespace {

Floats rows_of(const Floats& whole, Index columns, std::span<const Index> rows) {
  Floats some;
  for (const Index row : rows) {
    const auto first = whole.begin() + static_cast<std::ptrdiff_t>(row * columns);
    some.insert(some.end(), first, first + static_cast<std::ptrdiff_t>(columns));
  }
  return some;
}

// Columns `rows` of [k][m], as a left operand of their own.
Floats columns_of(const Floats& left, Index m, std::span<const Index> rows) {
  Floats some;
  for (std::size_t at = 0; at < left.size(); at += static_cast<std::size_t>(m)) {
    for (const Index row : rows) some.push_back(left[at + static_cast<std::size_t>(row)]);
  }
  return some;
}

// As on_all_paths, with one thread and two: such products take long.
Floats on_each_path(const std::function<Floats(const OpContext&)>& op) {
  static ThreadPool pools[] = {ThreadPool(1), ThreadPool(2)};
  const CpuPath before = cpu_path();
  const Floats first = op(single());
  for (const CpuPath path : kCpuPaths) {
    if (!choose_cpu_path(path)) continue;  // on_all_paths says which
    for (ThreadPool& pool : pools) {
      INFO("path " << to_string(path) << ", threads " << pool.threads());
      REQUIRE(same_bits(op(OpContext{&pool}), first));
    }
    const OtherCaches other;
    INFO("path " << to_string(path) << ", other caches");
    REQUIRE(same_bits(op(single()), first));
  }
  REQUIRE(choose_cpu_path(before));
  return first;
}

using Op = Result<> (*)(const OpContext&, const Product&);

constexpr Index kSome[] = {0, 95, 96, 191, 200, 255};

}  // namespace

TEST_CASE("product blocks: distant rows that are copied in tiles, the same bits on all paths") {
  const Index m = 256;  // so far apart that their lines fall together
  const Index n = 70;
  const Index k = 1100;
  const Floats left = draw(k * m, 1);
  const Floats right = draw(k * n, 2);
  const Floats before = draw(m * n, 3);
  const Floats whole = on_all_paths([&](const OpContext& ctx) {
    Floats output = before;
    REQUIRE(product_tn(ctx, {.left = matrix(left, k, m),
                             .right = matrix(right, k, n),
                             .output = matrix(output, m, n),
                             .start = ChainStart::output}));
    return output;
  });
  const auto count = static_cast<Index>(std::size(kSome));
  Floats alone = rows_of(before, n, kSome);
  const Floats some = columns_of(left, m, kSome);
  REQUIRE(product_tn(single(), {.left = matrix(some, k, count),
                                .right = matrix(right, k, n),
                                .output = matrix(alone, count, n),
                                .start = ChainStart::output}));
  CHECK(same_bits(rows_of(whole, n, kSome), alone));
}

TEST_CASE("product blocks: an operand that is cut by k and by columns") {
  const Index m = 258;
  const Index n = 2300;
  const Index k = 1030;
  const Floats left = draw(m * k, 4);
  const Floats right = draw(n * k, 5);
  for (const Op op : {Op{product_nt}, Op{product_nn}}) {
    const bool turned = op == Op{product_nt};
    const ConstMatrix by = turned ? matrix(right, n, k) : matrix(right, k, n);
    const Floats whole = on_each_path([&](const OpContext& ctx) {
      Floats output(static_cast<std::size_t>(m * n));
      REQUIRE(op(ctx, {.left = matrix(left, m, k), .right = by, .output = matrix(output, m, n)}));
      return output;
    });
    const Floats some = rows_of(left, k, kSome);
    const auto count = static_cast<Index>(std::size(kSome));
    Floats alone(static_cast<std::size_t>(count * n));
    REQUIRE(op(single(),
               {.left = matrix(some, count, k), .right = by, .output = matrix(alone, count, n)}));
    CHECK(same_bits(rows_of(whole, n, kSome), alone));
  }
}

namespace {

struct Quantised {
  WeightFormat format;
  Activations activations;
  Index rows, outputs, inputs;
};

// All rows at once on each path, and some of them alone.
void require_rows_as_alone(const Quantised& q, std::span<const Index> some) {
  INFO(to_string(q.format) << " " << q.rows << " x " << q.outputs << " x " << q.inputs);
  const Floats left = draw(q.rows * q.inputs, 6);
  const Floats weight = draw(q.outputs * q.inputs, 7);
  const auto packed = quantise_weight(single(), q.format, matrix(weight, q.outputs, q.inputs));
  REQUIRE(packed);
  const auto product = [&](const OpContext& ctx, const Floats& rows, Index count) {
    Floats output(static_cast<std::size_t>(count * q.outputs));
    REQUIRE(product_quantised(ctx, {.left = matrix(rows, count, q.inputs),
                                    .right = &*packed,
                                    .output = matrix(output, count, q.outputs),
                                    .activations = q.activations}));
    return output;
  };
  const Floats whole =
      on_each_path([&](const OpContext& ctx) { return product(ctx, left, q.rows); });
  for (const Index row : some) {
    const Index one[] = {row};
    CHECK(same_bits(rows_of(whole, q.outputs, one),
                    product(single(), rows_of(left, q.inputs, one), 1)));
  }
}

}  // namespace

// The second cache holds few rows of so many inputs: AMX takes 128 at once at least, others 48, or
// 60 where there are 2 MiB of it.
TEST_CASE("product blocks: rows by int8 weights in parts") {
  const Index some[] = {0, 47, 48, 59, 60, 127, 128, 143, 144, 149};
  for (const WeightFormat format :
       {WeightFormat::int8_channel, WeightFormat::q4_k, WeightFormat::q6_k}) {
    require_rows_as_alone({format, Activations::int8, 150, 17, 16384}, some);
  }
}

// Where panels of outputs are too few for the threads, they share rows, 256 together.
TEST_CASE("product blocks: many rows by few quantised outputs, exact activations") {
  const Index some[] = {0, 255, 256, 299};
  for (const WeightFormat format : {WeightFormat::bf16, WeightFormat::nf4, WeightFormat::q4_k}) {
    require_rows_as_alone({format, Activations::exact, 300, 70, 256}, some);
  }
}

}  // namespace tutti::kernels::parity
