// Products of bf16 operands and with bf16 weights, beside oneDNN, PyTorch and fp32.
#include <fmt/core.h>

#include <string>
#include <utility>
#include <vector>

#include "kernels/ops/product.h"
#include "kernels/ops/product_batched.h"
#include "kernels/ops/product_bf16.h"
#include "kernels/ops/weights/packed_bf16.h"
#include "kernels/tensor/rounding.h"
#include "ops/bench/kernels_cases.h"
#include "ops/bench/kernels_operands.h"
#include "ops/bench/kernels_shapes.h"
#include "ops/bench/peers/kernels_peers.h"

namespace tutti::bench {

using kernels::FloatBuffer;
using kernels::Index;
using kernels::Matrix;

namespace {

using Halves = std::vector<kernels::Bf16>;

Halves halves(const Bench& bench, Index count, std::uint64_t stream) {
  Halves made(static_cast<std::size_t>(count));
  TUTTI_ASSERT(to_bf16(bench.ctx, numbers(bench, count, stream).span(), made));
  return made;
}

struct Arithmetic {
  kernels::Bf16Arithmetic arithmetic;
  const char* name;
  double Bench::*ceiling;
};
constexpr Arithmetic kArithmetics[] = {
    {kernels::Bf16Arithmetic::tiles, "tiles", &Bench::tiles_gops},
    {kernels::Bf16Arithmetic::native, "native", &Bench::bf16_gops},
    {kernels::Bf16Arithmetic::widened, "widened", &Bench::peak_gflops},
};

Case bf16_case(const Bench& bench, const std::string& name, const Shape& s, const Arithmetic& a) {
  Case c = product_case(name, s);
  c.ceiling = bench.*a.ceiling;
  return c;
}

// The three products of a linear layer, each over its own sum.
struct Sides {
  Index Shape::*rows;
  Index Shape::*columns;
};
struct Bf16Kind {
  const char* name;
  Result<> (*op)(const kernels::OpContext&, const kernels::Bf16Product&);
  Result<> (*fp32)(const kernels::OpContext&, const kernels::Product&);
  Sides left, right, output;
};
constexpr Sides kTokensInputs{&Shape::m, &Shape::k};
constexpr Sides kTokensOutputs{&Shape::m, &Shape::n};
constexpr Sides kWeights{&Shape::n, &Shape::k};
constexpr Bf16Kind kBf16Kinds[] = {
    {"nt", kernels::product_bf16_nt, kernels::product_nt, kTokensInputs, kWeights, kTokensOutputs},
    {"nn", kernels::product_bf16_nn, kernels::product_nn, kTokensOutputs, kWeights, kTokensInputs},
    {"tn", kernels::product_bf16_tn, kernels::product_tn, kTokensOutputs, kTokensInputs, kWeights},
};

// Operands of a training shape, in both types.
void bench_kind(const Bench& bench, const Shape& s, ProductKind kind, const Arithmetic& a) {
  const Bf16Kind& k = kBf16Kinds[static_cast<int>(kind)];
  const std::string of = fmt::format("{} {} {}", s.name, k.name, size_of(s));
  const Case c = bf16_case(bench, fmt::format("bf16 {} {}", a.name, of), s, a);
  const Case over = bf16_case(bench, fmt::format("bf16 {} over fp32, {}", a.name, of), s, a);
  if (!wanted(bench, c.name) && !wanted(bench, over.name)) return;
  const auto rows = [&](const Sides& sides) { return s.*sides.rows; };
  const auto columns = [&](const Sides& sides) { return s.*sides.columns; };
  const auto count = [&](const Sides& sides) { return rows(sides) * columns(sides); };
  const Halves left = halves(bench, count(k.left), 1);
  const Halves right = halves(bench, count(k.right), 2);
  const FloatBuffer output(count(k.output));
  const Run ours = [&] {
    TUTTI_ASSERT(k.op(bench.ctx, {.left = {left.data(), rows(k.left), columns(k.left)},
                                  .right = {right.data(), rows(k.right), columns(k.right)},
                                  .output = output.matrix(rows(k.output), columns(k.output)),
                                  .arithmetic = a.arithmetic}));
  };
  bench_beside(bench, c, fmt::format("product_bf16 {} {} {} {}", k.name, s.m, s.n, s.k), ours,
               {{"onednn", onednn_bf16_product({.kind = kind,
                                                .m = rows(k.output),
                                                .n = columns(k.output),
                                                .k = s.m * s.n * s.k / count(k.output),
                                                .left = left.data(),
                                                .right = right.data(),
                                                .output = output.data()})}});
  if (!wanted(bench, over.name)) return;
  const FloatBuffer wide_left = numbers(bench, count(k.left), 1);
  const FloatBuffer wide_right = numbers(bench, count(k.right), 2);
  bench_beside(bench, over, ours,
               {{"fp32", [&] {
                   TUTTI_ASSERT(k.fp32(
                       bench.ctx, {.left = wide_left.matrix(rows(k.left), columns(k.left)),
                                   .right = wide_right.matrix(rows(k.right), columns(k.right)),
                                   .output = output.matrix(rows(k.output), columns(k.output))}));
                 }}});
}

// fp32 operands, rounded on the way as training has it, beside their fp32 product.
void bench_rounded(const Bench& bench, const Shape& s, ProductKind kind, const Arithmetic& a) {
  const Bf16Kind& k = kBf16Kinds[static_cast<int>(kind)];
  const Case c = bf16_case(
      bench, fmt::format("rounded {} {} {} {}", a.name, s.name, k.name, size_of(s)), s, a);
  if (!wanted(bench, c.name)) return;
  const auto made = [&](const Sides& sides, std::uint64_t stream) {
    return numbers(bench, s.*sides.rows * s.*sides.columns, stream);
  };
  const FloatBuffer left = made(k.left, 1);
  const FloatBuffer right = made(k.right, 2);
  const FloatBuffer output(s.*k.output.rows * s.*k.output.columns);
  const kernels::Product args{.left = left.matrix(s.*k.left.rows, s.*k.left.columns),
                              .right = right.matrix(s.*k.right.rows, s.*k.right.columns),
                              .output = output.matrix(s.*k.output.rows, s.*k.output.columns)};
  bench_beside(bench, c,
               [&] {
                 const kernels::RoundingScope rounding(a.arithmetic);
                 TUTTI_ASSERT(k.fp32(bench.ctx, args));
               },
               {{"fp32", [&] { TUTTI_ASSERT(k.fp32(bench.ctx, args)); }}});
}

// By an image of the weight, beside the weight as it is. Few rows read it from memory.
void bench_packed(const Bench& bench, const Shape& s, const Arithmetic& a) {
  Case c =
      bf16_case(bench, fmt::format("bf16 {} packed {} nt {}", a.name, s.name, size_of(s)), s, a);
  if (!wanted(bench, c.name)) return;
  const double bytes = 2.0 * static_cast<double>(s.n * s.k);
  if (s.m <= kFewRows && bytes >= 2e6) {
    c.bytes = bytes;
    c.sets = sets_beyond_caches(bytes);
  }
  const Halves left = halves(bench, s.m * s.k, 1);
  const Halves right = halves(bench, s.n * s.k, 2);
  const FloatBuffer output(s.m * s.n);
  const kernels::Bf16Product plain{.left = {left.data(), s.m, s.k},
                                   .right = {right.data(), s.n, s.k},
                                   .output = output.matrix(s.m, s.n),
                                   .arithmetic = a.arithmetic};
  std::vector<kernels::PackedBf16Weight> images;
  for (Index set = 0; set < c.sets; ++set) {
    images.push_back(*kernels::pack_bf16_weight(bench.ctx, plain.right, a.arithmetic));
  }
  Turns turns(c.sets);
  const Run ours = [&] {
    kernels::Bf16Product packed = plain;
    packed.packed = &images[turns.next()];
    TUTTI_ASSERT(product_bf16_nt(bench.ctx, packed));
  };
  std::vector<Other> others = {{"onednn", in_turns(c.sets, [&] {
                                  return onednn_bf16_product({.m = s.m,
                                                              .n = s.n,
                                                              .k = s.k,
                                                              .left = left.data(),
                                                              .right = right.data(),
                                                              .output = output.data(),
                                                              .right_side = RightSide::image});
                                })}};
  if (c.sets == 1) {
    others.push_back({"not packed", [&] { TUTTI_ASSERT(product_bf16_nt(bench.ctx, plain)); }});
  }
  bench_beside(bench, c, ours, others);
}

// A batch beside as many calls and beside PyTorch.
void bench_batch(const Bench& bench, Index count, const Shape& s, ProductKind kind,
                 const Arithmetic& a) {
  const Bf16Kind& k = kBf16Kinds[static_cast<int>(kind)];
  Case c = bf16_case(
      bench, fmt::format("batched bf16 {} {} {} of {}", a.name, k.name, count, size_of(s)), s, a);
  c.flops *= static_cast<double>(count);
  if (!wanted(bench, c.name)) return;
  const auto size = [&](const Sides& sides) { return s.*sides.rows * s.*sides.columns; };
  const Halves left = halves(bench, count * size(k.left), 1);
  const Halves right = halves(bench, count * size(k.right), 2);
  const FloatBuffer output(count * size(k.output));
  const kernels::Bf16BatchedProduct batch{
      .form = static_cast<kernels::ProductForm>(kind),
      .count = count,
      .left = {left.data(), s.*k.left.rows, s.*k.left.columns},
      .left_step = size(k.left),
      .right = {right.data(), s.*k.right.rows, s.*k.right.columns},
      .right_step = size(k.right),
      .output = output.matrix(s.*k.output.rows, s.*k.output.columns),
      .output_step = size(k.output),
      .arithmetic = a.arithmetic};
  const std::string torch = fmt::format("bmm bf16 {} {} {} {} {}", k.name, count, s.*k.output.rows,
                                        s.*k.output.columns, s.m * s.n * s.k / size(k.output));
  bench_beside(bench, c, torch, [&] { TUTTI_ASSERT(product_bf16_batched(bench.ctx, batch)); },
               {{"one by one", [&] {
                   kernels::Bf16Product one{.left = batch.left,
                                            .right = batch.right,
                                            .output = batch.output,
                                            .arithmetic = a.arithmetic};
                   for (Index i = 0; i < count; ++i) {
                     TUTTI_ASSERT(k.op(bench.ctx, one));
                     one.left.data += batch.left_step;
                     one.right.data += batch.right_step;
                     one.output.data += batch.output_step;
                   }
                 }}});
}

}  // namespace

void bench_bf16(const Bench& bench) {
  for (const Arithmetic& arithmetic : kArithmetics) {
    if (!kernels::has_bf16(arithmetic.arithmetic)) continue;
    for (const ProductKind kind : {ProductKind::nt, ProductKind::nn, ProductKind::tn}) {
      for (const Stack& b : kHeadStacks) bench_batch(bench, b.count, b.s, kind, arithmetic);
      bench_batch(bench, 3, {"", 512, 512, 512}, kind, arithmetic);
    }
  }
  for (const Shape& shape : kShapes) {
    for (const Arithmetic& arithmetic : kArithmetics) {
      if (!kernels::has_bf16(arithmetic.arithmetic)) continue;
      bench_packed(bench, shape, arithmetic);
      if (shape.m <= kFewRows) continue;
      for (const ProductKind kind : {ProductKind::nt, ProductKind::nn, ProductKind::tn}) {
        bench_kind(bench, shape, kind, arithmetic);
        bench_rounded(bench, shape, kind, arithmetic);
      }
    }
  }
}

}  // namespace tutti::bench
