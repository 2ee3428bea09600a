#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rms_norm.cc"
#include <hwy/foreach_target.h>

#include <cmath>

#include "kernels/cpu/caches/streamed-inl.h"
#include "kernels/cpu/lanes-inl.h"
#include "kernels/cpu/row_split.h"
#include "kernels/cpu/sums-inl.h"
#include "kernels/ops/rms_norm.h"
#include "kernels/tensor/device.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

template <class Part>
HWY_INLINE Lanes add_squares(const float* x, Part part, const Lanes& sum) {
  const Lanes value = load(x, part);
  return fma(value, value, sum);
}

// The squares of the next row are summed beside the writing of each: memory reads and writes at
// once.
void forward_rows(const RmsNormForward& args, Writes writes, Index begin, Index end) {
  const Index width = args.x.columns;
  Lanes sum = zero();
  each_lanes(width,
             [&](Index i, auto part) { sum = add_squares(args.x.row(begin) + i, part, sum); });
  for (Index row = begin; row < end; ++row) {
    const float* const x = args.x.row(row);
    float* const y = args.y.row(row);
    const float mean = sum_lanes(sum) / static_cast<float>(width);
    const float inverse = 1.0F / std::sqrt(mean + args.epsilon);
    if (args.inverse != nullptr) args.inverse[row] = inverse;
    const Lanes factor = splat(inverse);
    const auto write = [&](Index i, auto part) {
      put(load(x + i, part) * factor * load(args.weight + i, part), y + i, part, writes);
    };
    if (row + 1 == end) {
      each_lanes(width, write);
      break;
    }
    const float* const next = args.x.row(row + 1);
    sum = zero();
    each_lanes(width, [&](Index i, auto part) {
      sum = add_squares(next + i, part, sum);
      write(i, part);
    });
  }
  end_writes(writes);
}

void rms_norm_forward_kernel(const OpContext& ctx, const RmsNormForward& args) {
  const Writes writes = writes_to(args.y, {args.x.data});
  ctx.pool->parallel_for(
      args.x.rows, rows_in_piece(args.x.columns),
      [&](int, Index begin, Index end) { forward_rows(args, writes, begin, end); });
}

// A row of the operands. Values of its own: what is stored could be a part of `args`, for all that
// the compiler knows, and would have it loaded anew for each sixteen columns.
struct RmsNormRow {
  RmsNormRow(const RmsNormBackward& args, Index row)
      : x(args.x.row(row)),
        dy(args.dy.row(row)),
        weight(args.weight),
        factor(splat(args.inverse[row])) {}

  const float* x;
  const float* dy;
  const float* weight;
  Lanes factor;
};

// What is read of a row before it is written: the sum that its gradient takes and, with kWeight,
// its terms of the weight's gradient, whose chains go on from row to row.
template <bool kWeight, class Part>
HWY_INLINE Lanes read_row(const RmsNormRow& row, float* dweight, Index i, Part part,
                          const Lanes& sum) {
  const Lanes x = load(row.x + i, part);
  const Lanes dy = load(row.dy + i, part);
  if constexpr (kWeight) {
    const Lanes chain = load(dweight + i, part);
    store(fma(dy, x * row.factor, chain), dweight + i, part);
  }
  return fma(dy * load(row.weight + i, part), x, sum);
}

// Each row is read beside the writing of the one before: memory reads and writes at once, and rows
// come from it once.
template <bool kWeight>
void backward_rows(const RmsNormBackward& args, Index begin, Index end) {
  const Index width = args.x.columns;
  const Writes writes = writes_to(args.dx, {args.dy.data, args.x.data, args.residual.data});
  float* const dweight = args.dweight;
  Lanes sum = zero();
  const RmsNormRow first(args, begin);
  each_lanes(width,
             [&](Index i, auto part) { sum = read_row<kWeight>(first, dweight, i, part, sum); });
  for (Index row = begin; row < end; ++row) {
    const RmsNormRow own(args, row);
    const float* const residual = args.residual ? args.residual.row(row) : nullptr;
    float* const dx = args.dx.row(row);
    const float inverse = args.inverse[row];
    const float slope = inverse * inverse * inverse / static_cast<float>(width) * sum_lanes(sum);
    const Lanes along = splat(slope);
    const auto write = [&](Index i, auto part) {
      Lanes value = fnma(load(own.x + i, part), along,
                         own.factor * (load(own.dy + i, part) * load(own.weight + i, part)));
      if (residual != nullptr) value = value + load(residual + i, part);
      put(value, dx + i, part, writes);
    };
    if (row + 1 == end) {
      each_lanes(width, write);
      break;
    }
    const RmsNormRow next(args, row + 1);
    Lanes of_next = zero();
    each_lanes(width, [&](Index i, auto part) {
      of_next = read_row<kWeight>(next, dweight, i, part, of_next);
      write(i, part);
    });
    sum = of_next;
  }
  end_writes(writes);
}

// Sixteen columns of the weight's gradient: the chain of each goes on over some rows.
template <class Part>
HWY_INLINE void backward_columns(const RmsNormBackward& args, Index column, Part part,
                                 RowSpan rows) {
  Lanes sum = load(args.dweight + column, part);
  for (Index row = rows.first; row < rows.last; ++row) {
    const Lanes normal = load(args.x.row(row) + column, part) * splat(args.inverse[row]);
    sum = fma(load(args.dy.row(row) + column, part), normal, sum);
  }
  store(sum, args.dweight + column, part);
}

void rms_norm_backward_kernel(const OpContext& ctx, const RmsNormBackward& args) {
  const Index columns = args.x.columns;
  const Index rows = args.x.rows;
  // Chains over rows that several threads share are shared by columns.
  if (args.dweight != nullptr && ctx.pool->threads() == 1) {
    return ctx.pool->parallel_for(
        rows, rows, [&](int, Index begin, Index end) { backward_rows<true>(args, begin, end); });
  }
  each_span(rows, 2 * columns, ctx.pool->threads(), [&](RowSpan span) {
    // The weight first: dx may take the place of dy.
    if (args.dweight != nullptr) {
      each_columns(ctx, span, columns, [&](Index column, auto part, RowSpan some) {
        backward_columns(args, column, part, some);
      });
    }
    ctx.pool->parallel_for(span.count(), rows_in_piece(columns), [&](int, Index begin, Index end) {
      backward_rows<false>(args, span.first + begin, span.first + end);
    });
  });
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "kernels/tensor/op_counters.h"

#include "kernels/cpu/dispatch.h"

namespace tutti::kernels {

Result<> rms_norm_forward(const OpContext& ctx, const RmsNormForward& args) {
  if (!fits_outputs(args.x, args.y, args.rounded) || args.weight == nullptr) {
    return Error{ErrorCode::invalid_argument, "rms_norm_forward: x and y differ in shape"};
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  if (args.rounded) return rounded_on_devices_only("rms_norm_forward");
  const OpTimer timer(Op::rms_norm_forward, {.flop = 4 * args.x.rows * args.x.columns,
                                             .bytes = 8 * args.x.rows * args.x.columns});
  TUTTI_CPU_CALL(rms_norm_forward_kernel)(ctx, args);
  return {};
}

Result<> rms_norm_backward(const OpContext& ctx, const RmsNormBackward& args) {
  if (!same_shape(args.x, args.dy) || !fits_outputs(args.x, args.dx, args.rounded) ||
      args.weight == nullptr || args.inverse == nullptr ||
      (args.residual && !same_shape(args.x, args.residual))) {
    return Error{ErrorCode::invalid_argument,
                 "rms_norm_backward: x, dy, dx or residual differ in shape"};
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  if (args.rounded) return rounded_on_devices_only("rms_norm_backward");
  const OpTimer timer(Op::rms_norm_backward, {.flop = 9 * args.x.rows * args.x.columns,
                                              .bytes = 12 * args.x.rows * args.x.columns});
  TUTTI_CPU_CALL(rms_norm_backward_kernel)(ctx, args);
  return {};
}

}  // namespace tutti::kernels

#endif
