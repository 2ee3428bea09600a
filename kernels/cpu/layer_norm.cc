#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/layer_norm.cc"
#include <hwy/foreach_target.h>

#include <cmath>

#include "kernels/cpu/caches/streamed-inl.h"
#include "kernels/cpu/lanes-inl.h"
#include "kernels/cpu/row_split.h"
#include "kernels/cpu/sums-inl.h"
#include "kernels/ops/elementwise/layer_norm.h"
#include "kernels/tensor/device.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

// Writes the row whose sum is given, and sums the next one beside it, if there is one (`next`):
// memory reads and writes at once.
Lanes layer_norm_row(const LayerNormForward& args, Writes writes, Index row, const Lanes& own_sum,
                     const float* next) {
  const Index width = args.x.columns;
  const float* const x = args.x.row(row);
  float* const y = args.y.row(row);
  const float mean = sum_lanes(own_sum) / static_cast<float>(width);
  const Lanes offset = splat(mean);
  Lanes squares = zero();
  each_lanes(width, [&](Index i, auto part) {
    const Lanes away = keep(load(x + i, part) - offset, part, zero());
    squares = fma(away, away, squares);
  });
  const float variance = sum_lanes(squares) / static_cast<float>(width);
  const float inverse = 1.0F / std::sqrt(variance + args.epsilon);
  if (args.mean != nullptr) args.mean[row] = mean;
  if (args.inverse != nullptr) args.inverse[row] = inverse;
  const Lanes factor = splat(inverse);
  const auto write = [&](Index i, auto part) {
    const Lanes normal = (load(x + i, part) - offset) * factor;
    const Lanes bias = args.bias != nullptr ? load(args.bias + i, part) : zero();
    put(fma(normal, load(args.weight + i, part), bias), y + i, part, writes);
  };
  Lanes sum = zero();
  if (next == nullptr) {
    each_lanes(width, write);
    return sum;
  }
  each_lanes(width, [&](Index i, auto part) {
    sum = sum + load(next + i, part);
    write(i, part);
  });
  return sum;
}

void layer_norm_rows(const LayerNormForward& args, Writes writes, Index begin, Index end) {
  Lanes sum = zero();
  each_lanes(args.x.columns,
             [&](Index i, auto part) { sum = sum + load(args.x.row(begin) + i, part); });
  for (Index row = begin; row < end; ++row) {
    sum = layer_norm_row(args, writes, row, sum, row + 1 < end ? args.x.row(row + 1) : nullptr);
  }
  end_writes(writes);
}

void layer_norm_forward_kernel(const OpContext& ctx, const LayerNormForward& args) {
  const Writes writes = writes_to(args.y, {args.x.data});
  ctx.pool->parallel_for(
      args.x.rows, rows_in_piece(args.x.columns),
      [&](int, Index begin, Index end) { layer_norm_rows(args, writes, begin, end); });
}

// A row of the operands. Values of its own: what is stored could be a part of `args`, for all that
// the compiler knows, and would have it loaded anew for each sixteen columns.
struct LayerNormRow {
  LayerNormRow(const LayerNormBackward& args, Index row)
      : x(args.x.row(row)),
        dy(args.dy.row(row)),
        weight(args.weight),
        offset(splat(args.mean[row])),
        factor(splat(args.inverse[row])) {}

  template <class Part>
  HWY_INLINE Lanes normal(Index i, Part part) const {
    return (load(x + i, part) - offset) * factor;
  }

  const float* x;
  const float* dy;
  const float* weight;
  Lanes offset;
  Lanes factor;
};

// The sums that a row's gradient takes, before it is written.
struct RowSums {
  Lanes sum;
  Lanes along;
};

// They go on; with kWeights so do the chains of the gradients of weight and bias, from row to row.
template <bool kWeights, class Part>
HWY_INLINE RowSums read_row(const LayerNormRow& row, float* dweight, float* dbias, Index i,
                            Part part, const RowSums& sums) {
  const Lanes dy = load(row.dy + i, part);
  const Lanes normal = row.normal(i, part);
  if constexpr (kWeights) {
    if (dweight != nullptr) store(fma(dy, normal, load(dweight + i, part)), dweight + i, part);
    if (dbias != nullptr) store(load(dbias + i, part) + dy, dbias + i, part);
  }
  // Beyond the end dy is zero, and so is what is added.
  const Lanes g = dy * load(row.weight + i, part);
  return {sums.sum + g, fma(g, normal, sums.along)};
}

// What the loop over columns calls. Inlined late, as the compiler would by itself, all that it
// refers to is memory that each round reads and writes anew: 28 cycles for sixteen columns in place
// of 11.
#define TUTTI_IN_LOOP __attribute__((always_inline))

// Each row is read beside the writing of the one before: memory reads and writes at once, and rows
// come from it once.
template <bool kWeights>
void layer_norm_dx_rows(const LayerNormBackward& args, Index begin, Index end) {
  const Index width = args.x.columns;
  const Writes writes = writes_to(args.dx, {args.dy.data, args.x.data, args.residual.data});
  float* const dweight = args.dweight;
  float* const dbias = args.dbias;
  RowSums sums{zero(), zero()};
  const LayerNormRow first(args, begin);
  each_lanes(width, [&](Index i, auto part) TUTTI_IN_LOOP {
    sums = read_row<kWeights>(first, dweight, dbias, i, part, sums);
  });
  for (Index row = begin; row < end; ++row) {
    const LayerNormRow own(args, row);
    const float* const residual = args.residual ? args.residual.row(row) : nullptr;
    float* const dx = args.dx.row(row);
    const Lanes mean = splat(sum_lanes(sums.sum) / static_cast<float>(width));
    const Lanes slope = splat(sum_lanes(sums.along) / static_cast<float>(width));
    const auto write = [&](Index i, auto part) TUTTI_IN_LOOP {
      const Lanes g = load(own.dy + i, part) * load(own.weight + i, part);
      Lanes value = own.factor * fnma(own.normal(i, part), slope, g - mean);
      if (residual != nullptr) value = value + load(residual + i, part);
      put(value, dx + i, part, writes);
    };
    if (row + 1 == end) {
      each_lanes(width, write);
      break;
    }
    const LayerNormRow next(args, row + 1);
    RowSums of_next{zero(), zero()};
    each_lanes(width, [&](Index i, auto part) TUTTI_IN_LOOP {
      of_next = read_row<kWeights>(next, dweight, dbias, i, part, of_next);
      write(i, part);
    });
    sums = of_next;
  }
  end_writes(writes);
}

// Sixteen columns of the gradients of weight and bias: the chain of each goes on over some rows.
template <class Part>
HWY_INLINE void layer_norm_columns(const LayerNormBackward& args, Index column, Part part,
                                   RowSpan rows) {
  Lanes weight = args.dweight != nullptr ? load(args.dweight + column, part) : zero();
  Lanes bias = args.dbias != nullptr ? load(args.dbias + column, part) : zero();
  for (Index row = rows.first; row < rows.last; ++row) {
    const Lanes dy = load(args.dy.row(row) + column, part);
    const Lanes normal =
        (load(args.x.row(row) + column, part) - splat(args.mean[row])) * splat(args.inverse[row]);
    weight = fma(dy, normal, weight);
    bias = bias + dy;
  }
  if (args.dweight != nullptr) store(weight, args.dweight + column, part);
  if (args.dbias != nullptr) store(bias, args.dbias + column, part);
}

void layer_norm_backward_kernel(const OpContext& ctx, const LayerNormBackward& args) {
  const Index columns = args.x.columns;
  const Index rows = args.x.rows;
  const bool weights = args.dweight != nullptr || args.dbias != nullptr;
  // Chains over rows that several threads share are shared by columns.
  if (weights && ctx.pool->threads() == 1) {
    return ctx.pool->parallel_for(rows, rows, [&](int, Index begin, Index end) {
      layer_norm_dx_rows<true>(args, begin, end);
    });
  }
  each_span(rows, 2 * columns, ctx.pool->threads(), [&](RowSpan span) {
    // The weight first: dx may take the place of dy.
    if (weights) {
      each_columns(ctx, span, columns, [&](Index column, auto part, RowSpan some) {
        layer_norm_columns(args, column, part, some);
      });
    }
    ctx.pool->parallel_for(span.count(), rows_in_piece(columns), [&](int, Index begin, Index end) {
      layer_norm_dx_rows<false>(args, span.first + begin, span.first + end);
    });
  });
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "kernels/tensor/op_counters.h"

#include "kernels/cpu/dispatch.h"

namespace tutti::kernels {

Result<> layer_norm_forward(const OpContext& ctx, const LayerNormForward& args) {
  if (!fits_outputs(args.x, args.y, args.rounded) || args.weight == nullptr) {
    return Error{ErrorCode::invalid_argument, "layer_norm_forward: x and y differ in shape"};
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  if (args.rounded) return rounded_on_devices_only("layer_norm_forward");
  const OpTimer timer(Op::layer_norm_forward, {.flop = 7 * args.x.rows * args.x.columns,
                                               .bytes = 8 * args.x.rows * args.x.columns});
  TUTTI_CPU_CALL(layer_norm_forward_kernel)(ctx, args);
  return {};
}

Result<> layer_norm_backward(const OpContext& ctx, const LayerNormBackward& args) {
  if (!same_shape(args.x, args.dy) || !fits_outputs(args.x, args.dx, args.rounded) ||
      args.weight == nullptr || args.mean == nullptr || args.inverse == nullptr ||
      (args.residual && !same_shape(args.x, args.residual))) {
    return Error{ErrorCode::invalid_argument,
                 "layer_norm_backward: x, dy, dx or residual differ in shape, or what forward kept "
                 "is missing"};
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  if (args.rounded) return rounded_on_devices_only("layer_norm_backward");
  const OpTimer timer(Op::layer_norm_backward, {.flop = 13 * args.x.rows * args.x.columns,
                                                .bytes = 12 * args.x.rows * args.x.columns});
  TUTTI_CPU_CALL(layer_norm_backward_kernel)(ctx, args);
  return {};
}

}  // namespace tutti::kernels

#endif
