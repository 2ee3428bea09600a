#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/optimizers/muon.cc"
#include <hwy/foreach_target.h>

#include <algorithm>

#include "kernels/cpu/row_split.h"
#include "kernels/cpu/squares-inl.h"
#include "kernels/ops/optimizers/muon.h"
#include "kernels/tensor/device.h"

#ifndef TUTTI_MUON_BLEND
#define TUTTI_MUON_BLEND
namespace tutti::kernels {

// to = a * x + b * y over n elements; to may be x or y.
struct Blend {
  float a = 0.0F;
  const float* x = nullptr;
  float b = 0.0F;
  const float* y = nullptr;
  float* to = nullptr;
  Index count = 0;
};

// Of n elements: velocity = momentum * velocity + g, u = momentum * velocity + g, g = factor *
// gradient.
struct MuonDirection {
  float momentum = 0.0F;
  float factor = 0.0F;
  const float* gradient = nullptr;
  float* velocity = nullptr;
  float* u = nullptr;
  Index count = 0;
};

}  // namespace tutti::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

// On the calling thread.
void blend_block(const Blend& args) {
  const Lanes a = splat(args.a);
  const Lanes b = splat(args.b);
  each_lanes(args.count, [&](Index i, auto part) {
    store(fma(b, load(args.y + i, part), a * load(args.x + i, part)), args.to + i, part);
  });
}

// On the calling thread, a grid block; returns the sum of the squares of u, as square_sums has it.
double muon_direction_block(const MuonDirection& args) {
  constexpr Index kTile = 4096;  // three times 16 KiB: u is squared out of a first cache
  const Lanes momentum = splat(args.momentum);
  const Lanes factor = splat(args.factor);
  alignas(64) double squares[kLanes] = {};
  for (Index first = 0; first < args.count; first += kTile) {
    const Index count = std::min(kTile, args.count - first);
    const float* const gradient = args.gradient + first;
    float* const velocity = args.velocity + first;
    float* const u = args.u + first;
    each_lanes(count, [&](Index i, auto part) {
      const Lanes g = load(gradient + i, part);
      const Lanes v = fma(factor, g, momentum * load(velocity + i, part));
      store(v, velocity + i, part);
      store(fma(factor, g, momentum * v), u + i, part);
    });
    add_squares(u, count, squares);
  }
  return fold_squares(squares);
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "kernels/tensor/op_counters.h"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/optimizers/grid_blocks.h"
#include "kernels/cpu/product/pack.h"
#include "kernels/ops/gradient_norm.h"
#include "kernels/ops/product.h"
#include "kernels/tensor/rounding.h"

namespace tutti::kernels {

namespace {

Blend piece_of(const Blend& all, Index begin, Index end) {
  return {all.a, all.x + begin, all.b, all.y + begin, all.to + begin, end - begin};
}

void blend(const OpContext& ctx, const Blend& args) {
  const auto block = TUTTI_CPU_CALL(blend_block);
  ctx.pool->parallel_for(args.count, kElementsInPiece,
                         [&](int, Index begin, Index end) { block(piece_of(args, begin, end)); });
}

// Writes the velocity and u, of the update's shape; returns |u|.
double direct(const OpContext& ctx, const MuonUpdate& args, Matrix u) {
  const Index count = u.rows * u.columns;
  const Index blocks = grid_blocks(count);
  Arena& arena = ctx.pool->op_scratch();
  ArenaScope scope(arena);
  const auto sum_count = static_cast<std::size_t>(blocks);
  auto* const sums = reinterpret_cast<double*>(arena.take(sum_count * sizeof(double)));
  const auto block = TUTTI_CPU_CALL(muon_direction_block);
  ctx.pool->parallel_for(blocks, 1, [&](int, Index begin, Index end) {
    for (Index b = begin; b < end; ++b) {
      const Index first = b * kGridBlock;
      sums[b] = block({.momentum = static_cast<float>(args.settings.momentum),
                       .factor = args.settings.factor,
                       .gradient = args.gradient.data + first,
                       .velocity = args.velocity.data + first,
                       .u = u.data + first,
                       .count = std::min(kGridBlock, count - first)});
    }
  });
  return std::sqrt(ordered_sum({sums, sum_count}));
}

// to = x turned; x and to are contiguous. By bands of rows, each a whole number of cache lines of
// `to`.
void turn(const OpContext& ctx, ConstMatrix x, Matrix to) {
  constexpr Index kBand = 64;
  ctx.pool->parallel_for((x.rows + kBand - 1) / kBand, 1, [&](int, Index begin, Index end) {
    const Index first = begin * kBand;
    const Index rows = std::min(end * kBand, x.rows) - first;
    transpose_into(x.row_range(first, rows), to.data + first, to.stride);
  });
}

// An iteration of orthogonalise() is three products; weight, velocity and gradient pass once.
OpWork work_of(ConstMatrix weight, int iterations) {
  const Index rows = std::min(weight.rows, weight.columns);
  const Index columns = std::max(weight.rows, weight.columns);
  return {.flop = iterations * (4 * rows * rows * columns + 2 * rows * rows * rows),
          .bytes = 20 * rows * columns};
}

// Newton and Schulz's iteration of the fifth order, in place; x has no more rows than columns.
void orthogonalise(const OpContext& ctx, Matrix x, int iterations) {
  constexpr float kA = 3.4445F;
  constexpr float kB = -4.7750F;
  constexpr float kC = 2.0315F;
  Arena& arena = ctx.pool->op_scratch();
  ArenaScope scope(arena);
  const Matrix gram = arena.matrix(x.rows, x.rows);
  const Matrix square = arena.matrix(x.rows, x.rows);
  const Matrix turned = arena.matrix(x.rows, x.columns);
  const RoundingScope exact(std::nullopt);  // updates are fp32, whatever the pass rounds
  for (int i = 0; i < iterations; ++i) {
    TUTTI_ASSERT(product_nt(ctx, {.left = x, .right = x, .output = gram}).ok());
    TUTTI_ASSERT(product_nn(ctx, {.left = gram, .right = gram, .output = square}).ok());
    blend(ctx, {kB, gram.data, kC, square.data, gram.data, x.rows * x.rows});
    TUTTI_ASSERT(product_nn(ctx, {.left = gram, .right = x, .output = turned}).ok());
    blend(ctx, {kA, x.data, 1.0F, turned.data, x.data, x.rows * x.columns});
  }
}

}  // namespace

Result<> muon_update(const OpContext& ctx, const MuonUpdate& args) {
  const MuonSettings& s = args.settings;
  const Matrix& weight = args.weight;
  const Index count = weight.rows * weight.columns;
  if (!same_shape(weight, args.gradient) || !same_shape(weight, args.velocity) ||
      weight.stride != weight.columns || args.gradient.stride != weight.columns ||
      args.velocity.stride != weight.columns ||
      !fits_blocks(static_cast<std::size_t>(count), args.hashes)) {
    return Error{ErrorCode::invalid_argument,
                 "muon_update: weight, gradient, velocity or hashes do not match"};
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  if (count == 0) return {};
  const OpTimer timer(Op::muon_update, work_of(weight, s.iterations));
  Arena& arena = ctx.pool->op_scratch();
  ArenaScope scope(arena);
  const Matrix u = arena.matrix(weight.rows, weight.columns);
  const auto inverse = static_cast<float>(1.0 / (direct(ctx, args, u) + 1e-7));
  blend(ctx, {inverse, u.data, 0.0F, u.data, u.data, count});
  if (weight.rows <= weight.columns) {
    orthogonalise(ctx, u, s.iterations);
  } else {
    const Matrix turned = arena.matrix(weight.columns, weight.rows);
    turn(ctx, u, turned);
    orthogonalise(ctx, turned, s.iterations);
    turn(ctx, turned, u);
  }
  const double aspect = static_cast<double>(weight.rows) / static_cast<double>(weight.columns);
  const Blend last{static_cast<float>(1.0 - s.rate * s.decay),
                   weight.data,
                   static_cast<float>(-s.rate * std::sqrt(std::max(1.0, aspect))),
                   u.data,
                   weight.data,
                   count};
  const auto block = TUTTI_CPU_CALL(blend_block);
  update_blocks(ctx, {weight.data, static_cast<std::size_t>(count)}, args.hashes,
                [&](Index begin, Index end) { block(piece_of(last, begin, end)); });
  return {};
}

}  // namespace tutti::kernels

#endif
