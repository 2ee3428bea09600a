#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/softmax.cc"
#include <hwy/foreach_target.h>

#include "kernels/cpu/caches/streamed-inl.h"
#include "kernels/cpu/row_split.h"
#include "kernels/cpu/sums-inl.h"
#include "kernels/ops/elementwise/softmax.h"
#include "kernels/tensor/device.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

// The largest of the next row is taken beside the writing of each: memory reads and writes at once.
// `held`: where the weights of a row wait that is streamed; else they wait in the row.
void softmax_rows(const SoftmaxForward& args, Writes writes, float* held, Index begin, Index end) {
  const Index width = args.x.columns;
  float top = largest_of(args.x.row(begin), width);
  for (Index row = begin; row < end; ++row) {
    float* const y = args.y.row(row);
    float* const weights = writes == Writes::streamed ? held : y;
    // Exponentials leave memory idle: the next row comes meanwhile.
    const float sum = weigh<Next::asked>(args.x.row(row), top, weights, width, args.x.stride);
    const Lanes by = splat(1.0F / sum);
    const auto write = [&](Index i, auto part) {
      put(load(weights + i, part) * by, y + i, part, writes);
    };
    if (row + 1 == end) {
      each_lanes(width, write);
      break;
    }
    const float* const next = args.x.row(row + 1);
    Largest largest = no_largest();
    each_lanes(width, [&](Index i, auto part) {
      largest.take(next + i, part);
      write(i, part);
    });
    top = max_lanes(largest.lanes);
  }
  end_writes(writes);
}

void softmax_forward_kernel(const OpContext& ctx, const SoftmaxForward& args) {
  const Writes writes = writes_to(args.y, {args.x.data});
  ctx.pool->parallel_for(
      args.x.rows, rows_in_piece(args.x.columns), [&](int thread, Index begin, Index end) {
        ArenaScope scope(ctx.pool->scratch(thread));
        float* const held =
            writes == Writes::streamed ? ctx.pool->scratch(thread).floats(args.x.columns) : nullptr;
        softmax_rows(args, writes, held, begin, end);
      });
}

template <class Part>
HWY_INLINE Lanes add_products(const SoftmaxBackward& args, Index row, Index i, Part part,
                              const Lanes& sum) {
  return fma(load(args.dy.row(row) + i, part), load(args.y.row(row) + i, part), sum);
}

void softmax_backward_rows(const SoftmaxBackward& args, Writes writes, Index begin, Index end) {
  const Index width = args.y.columns;
  Lanes sum = zero();
  each_lanes(width, [&](Index i, auto part) { sum = add_products(args, begin, i, part, sum); });
  for (Index row = begin; row < end; ++row) {
    const float* const y = args.y.row(row);
    const float* const dy = args.dy.row(row);
    float* const dx = args.dx.row(row);
    const Lanes mean = splat(sum_lanes(sum));
    const auto write = [&](Index i, auto part) {
      put(load(y + i, part) * (load(dy + i, part) - mean), dx + i, part, writes);
    };
    if (row + 1 == end) {
      each_lanes(width, write);
      break;
    }
    sum = zero();
    each_lanes(width, [&](Index i, auto part) {
      sum = add_products(args, row + 1, i, part, sum);
      write(i, part);
    });
  }
  end_writes(writes);
}

void softmax_backward_kernel(const OpContext& ctx, const SoftmaxBackward& args) {
  const Writes writes = writes_to(args.dx, {args.y.data, args.dy.data});
  ctx.pool->parallel_for(
      args.y.rows, rows_in_piece(args.y.columns),
      [&](int, Index begin, Index end) { softmax_backward_rows(args, writes, begin, end); });
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
  const OpTimer timer(Op::softmax_forward, {.flop = 4 * args.x.rows * args.x.columns,
                                            .bytes = 8 * args.x.rows * args.x.columns});
  TUTTI_CPU_CALL(softmax_forward_kernel)(ctx, args);
  return {};
}

Result<> softmax_backward(const OpContext& ctx, const SoftmaxBackward& args) {
  if (!same_shape(args.y, args.dy) || !same_shape(args.y, args.dx)) {
    return Error{ErrorCode::invalid_argument, "softmax_backward: y, dy and dx differ in shape"};
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  const OpTimer timer(Op::softmax_backward, {.flop = 4 * args.y.rows * args.y.columns,
                                             .bytes = 12 * args.y.rows * args.y.columns});
  TUTTI_CPU_CALL(softmax_backward_kernel)(ctx, args);
  return {};
}

}  // namespace tutti::kernels

#endif
