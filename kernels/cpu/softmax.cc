#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/softmax.cc"
#include <hwy/foreach_target.h>

#include "kernels/cpu/row_split.h"
#include "kernels/cpu/sums-inl.h"
#include "kernels/ops/elementwise/softmax.h"
#include "kernels/tensor/device.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

void softmax_row(const float* x, float* y, Index width) {
  const Lanes by = splat(1.0F / weigh(x, largest_of(x, width), y, width));
  each_lanes(width, [&](Index i, auto part) { store(load(y + i, part) * by, y + i, part); });
}

void softmax_forward_kernel(const OpContext& ctx, const SoftmaxForward& args) {
  ctx.pool->parallel_for(args.x.rows, rows_in_piece(args.x.columns),
                         [&](int, Index begin, Index end) {
                           for (Index row = begin; row < end; ++row) {
                             softmax_row(args.x.row(row), args.y.row(row), args.x.columns);
                           }
                         });
}

void softmax_backward_kernel(const OpContext& ctx, const SoftmaxBackward& args) {
  const Index width = args.y.columns;
  ctx.pool->parallel_for(args.y.rows, rows_in_piece(width), [&](int, Index begin, Index end) {
    for (Index row = begin; row < end; ++row) {
      const float* const y = args.y.row(row);
      const float* const dy = args.dy.row(row);
      float* const dx = args.dx.row(row);
      Lanes sum = zero();
      each_lanes(width, [&](Index i, auto part) {
        sum = fma(load(dy + i, part), load(y + i, part), sum);
      });
      const Lanes mean = splat(sum_lanes(sum));
      each_lanes(width, [&](Index i, auto part) {
        store(load(y + i, part) * (load(dy + i, part) - mean), dx + i, part);
      });
    }
  });
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "kernels/tensor/op_counters.h"

#include "kernels/cpu/dispatch.h"

namespace tutti::kernels {

Result<> softmax_forward(const OpContext& ctx, const SoftmaxForward& args) {
  if (!same_shape(args.x, args.y)) {
    return Error{ErrorCode::invalid_argument, "softmax_forward: x and y differ in shape"};
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  const OpTimer timer(Op::softmax_forward, {.bytes = 8 * args.x.rows * args.x.columns});
  TUTTI_CPU_CALL(softmax_forward_kernel)(ctx, args);
  return {};
}

Result<> softmax_backward(const OpContext& ctx, const SoftmaxBackward& args) {
  if (!same_shape(args.y, args.dy) || !same_shape(args.y, args.dx)) {
    return Error{ErrorCode::invalid_argument, "softmax_backward: y, dy and dx differ in shape"};
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  const OpTimer timer(Op::softmax_backward, {.bytes = 12 * args.y.rows * args.y.columns});
  TUTTI_CPU_CALL(softmax_backward_kernel)(ctx, args);
  return {};
}

}  // namespace tutti::kernels

#endif
