#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rms_norm.cc"
#include <hwy/foreach_target.h>

#include <cmath>

#include "kernels/cpu/lanes-inl.h"
#include "kernels/cpu/row_split.h"
#include "kernels/cpu/sums-inl.h"
#include "kernels/ops/rms_norm.h"
#include "kernels/tensor/device.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

void forward_row(const RmsNormForward& args, Index row) {
  const Index width = args.x.columns;
  const float* const x = args.x.row(row);
  float* const y = args.y.row(row);
  Lanes sum = zero();
  each_lanes(width, [&](Index i, auto part) {
    const Lanes value = load(x + i, part);
    sum = fma(value, value, sum);
  });
  const float mean = sum_lanes(sum) / static_cast<float>(width);
  const float inverse = 1.0F / std::sqrt(mean + args.epsilon);
  if (args.inverse != nullptr) args.inverse[row] = inverse;
  const Lanes factor = splat(inverse);
  each_lanes(width, [&](Index i, auto part) {
    store(load(x + i, part) * factor * load(args.weight + i, part), y + i, part);
  });
}

void rms_norm_forward_kernel(const OpContext& ctx, const RmsNormForward& args) {
  ctx.pool->parallel_for(args.x.rows, rows_in_piece(args.x.columns),
                         [&](int, Index begin, Index end) {
                           for (Index row = begin; row < end; ++row) forward_row(args, row);
                         });
}

void backward_row(const RmsNormBackward& args, Index row) {
  const Index width = args.x.columns;
  const float* const x = args.x.row(row);
  const float* const dy = args.dy.row(row);
  const float* const residual = args.residual ? args.residual.row(row) : nullptr;
  float* const dx = args.dx.row(row);
  Lanes sum = zero();
  each_lanes(width, [&](Index i, auto part) {
    sum = fma(load(dy + i, part) * load(args.weight + i, part), load(x + i, part), sum);
  });
  const float inverse = args.inverse[row];
  const float slope = inverse * inverse * inverse / static_cast<float>(width) * sum_lanes(sum);
  const Lanes factor = splat(inverse);
  const Lanes along = splat(slope);
  each_lanes(width, [&](Index i, auto part) {
    Lanes value =
        fnma(load(x + i, part), along, factor * (load(dy + i, part) * load(args.weight + i, part)));
    if (residual != nullptr) value = value + load(residual + i, part);
    store(value, dx + i, part);
  });
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
  each_span(args.x.rows, 2 * columns, ctx.pool->threads(), [&](RowSpan span) {
    // The weight first: dx may take the place of dy.
    if (args.dweight != nullptr) {
      each_columns(ctx, span, columns, [&](Index column, auto part, RowSpan rows) {
        backward_columns(args, column, part, rows);
      });
    }
    ctx.pool->parallel_for(span.count(), rows_in_piece(columns), [&](int, Index begin, Index end) {
      for (Index row = begin; row < end; ++row) backward_row(args, span.first + row);
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
  if (!same_shape(args.x, args.y) || args.weight == nullptr) {
    return Error{ErrorCode::invalid_argument, "rms_norm_forward: x and y differ in shape"};
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  const OpTimer timer(Op::rms_norm_forward, {.bytes = 8 * args.x.rows * args.x.columns});
  TUTTI_CPU_CALL(rms_norm_forward_kernel)(ctx, args);
  return {};
}

Result<> rms_norm_backward(const OpContext& ctx, const RmsNormBackward& args) {
  if (!same_shape(args.x, args.dy) || !same_shape(args.x, args.dx) || args.weight == nullptr ||
      args.inverse == nullptr || (args.residual && !same_shape(args.x, args.residual))) {
    return Error{ErrorCode::invalid_argument,
                 "rms_norm_backward: x, dy, dx or residual differ in shape"};
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  const OpTimer timer(Op::rms_norm_backward, {.bytes = 12 * args.x.rows * args.x.columns});
  TUTTI_CPU_CALL(rms_norm_backward_kernel)(ctx, args);
  return {};
}

}  // namespace tutti::kernels

#endif
