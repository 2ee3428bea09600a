#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rms_norm.cc"
#include <hwy/foreach_target.h>

#include <cmath>

#include "kernels/cpu/lanes-inl.h"
#include "kernels/cpu/row_split.h"
#include "kernels/ops/rms_norm.h"
#include "kernels/tensor/device.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

void forward_row(const RmsNormForward& args, Index row) {
  const Index width = args.x.columns;
  const float* const x = args.x.row(row);
  float* const y = args.y.row(row);
  Lanes sum = zero();
  for_lanes(
      width,
      [&](Index i) {
        const Lanes value = load(x + i);
        sum = fma(value, value, sum);
      },
      [&](Index i, Index left) {
        const Lanes value = load_first(x + i, left);
        sum = fma(value, value, sum);
      });
  const float mean = sum_lanes(sum) / static_cast<float>(width);
  const float inverse = 1.0F / std::sqrt(mean + args.epsilon);
  if (args.inverse != nullptr) args.inverse[row] = inverse;
  const Lanes factor = splat(inverse);
  for_lanes(
      width, [&](Index i) { store(load(x + i) * factor * load(args.weight + i), y + i); },
      [&](Index i, Index left) {
        store_first(load_first(x + i, left) * factor * load_first(args.weight + i, left), y + i,
                    left);
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
  for_lanes(
      width, [&](Index i) { sum = fma(load(dy + i) * load(args.weight + i), load(x + i), sum); },
      [&](Index i, Index left) {
        sum = fma(load_first(dy + i, left) * load_first(args.weight + i, left),
                  load_first(x + i, left), sum);
      });
  const float inverse = args.inverse[row];
  const float slope = inverse * inverse * inverse / static_cast<float>(width) * sum_lanes(sum);
  const Lanes factor = splat(inverse);
  const Lanes along = splat(slope);
  for_lanes(
      width,
      [&](Index i) {
        Lanes value = fnma(load(x + i), along, factor * (load(dy + i) * load(args.weight + i)));
        if (residual != nullptr) value = value + load(residual + i);
        store(value, dx + i);
      },
      [&](Index i, Index left) {
        Lanes value = fnma(load_first(x + i, left), along,
                           factor * (load_first(dy + i, left) * load_first(args.weight + i, left)));
        if (residual != nullptr) value = value + load_first(residual + i, left);
        store_first(value, dx + i, left);
      });
}

// Sixteen columns of the weight's gradient: one chain over all rows for each.
void backward_columns(const RmsNormBackward& args, Index column) {
  const Index left = std::min(kLanes, args.x.columns - column);
  const bool whole = left == kLanes;
  float* const place = args.dweight + column;
  Lanes sum = whole ? load(place) : load_first(place, left);
  for (Index row = 0; row < args.x.rows; ++row) {
    const float* const x = args.x.row(row) + column;
    const float* const dy = args.dy.row(row) + column;
    const Lanes factor = splat(args.inverse[row]);
    sum = whole ? fma(load(dy), load(x) * factor, sum)
                : fma(load_first(dy, left), load_first(x, left) * factor, sum);
  }
  if (whole) {
    store(sum, place);
  } else {
    store_first(sum, place, left);
  }
}

void rms_norm_backward_kernel(const OpContext& ctx, const RmsNormBackward& args) {
  // The weight first: dx may take the place of dy.
  if (args.dweight != nullptr) {
    const Index groups = (args.x.columns + kLanes - 1) / kLanes;
    ctx.pool->parallel_for(groups, 4, [&](int, Index begin, Index end) {
      for (Index group = begin; group < end; ++group) backward_columns(args, group * kLanes);
    });
  }
  ctx.pool->parallel_for(args.x.rows, rows_in_piece(args.x.columns),
                         [&](int, Index begin, Index end) {
                           for (Index row = begin; row < end; ++row) backward_row(args, row);
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
