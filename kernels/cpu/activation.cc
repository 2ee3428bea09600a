#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/activation.cc"
#include <hwy/foreach_target.h>

#include "kernels/cpu/activation-inl.h"
#include "kernels/cpu/caches/streamed-inl.h"
#include "kernels/cpu/row_split.h"
#include "kernels/ops/elementwise/activation.h"
#include "kernels/tensor/device.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

template <class Row>
HWY_INLINE void for_rows(const OpContext& ctx, const Matrix& output, Writes writes,
                         const Row& row_body) {
  ctx.pool->parallel_for(output.rows, rows_in_piece(output.columns),
                         [&](int, Index begin, Index end) {
                           for (Index row = begin; row < end; ++row) row_body(row);
                           end_writes(writes);
                         });
}

void activation_forward_kernel(const OpContext& ctx, const ActivationForward& args) {
  const Writes writes = writes_to(args.y, {args.x.data});
  with_activation(args.kind, [&](auto f) {
    for_rows(ctx, args.y, writes, [&](Index row) {
      const float* const x = args.x.row(row);
      float* const y = args.y.row(row);
      each_lanes_twice(args.x.columns, [&](Index i, auto part) {
        put(decltype(f)::value(load(x + i, part)), y + i, part, writes);
      });
    });
  });
}

void activation_backward_kernel(const OpContext& ctx, const ActivationBackward& args) {
  const Writes writes = writes_to(args.dx, {args.x.data, args.dy.data});
  with_activation(args.kind, [&](auto f) {
    for_rows(ctx, args.dx, writes, [&](Index row) {
      const float* const x = args.x.row(row);
      const float* const dy = args.dy.row(row);
      float* const dx = args.dx.row(row);
      each_lanes_twice(args.x.columns, [&](Index i, auto part) {
        const auto slope = decltype(f)::both(load(x + i, part)).slope;
        put(load(dy + i, part) * slope, dx + i, part, writes);
      });
    });
  });
}

void gate_forward_kernel(const OpContext& ctx, const GateForward& args) {
  const Writes writes = writes_to(args.y, {args.gate.data, args.up.data});
  with_activation(args.kind, [&](auto f) {
    for_rows(ctx, args.y, writes, [&](Index row) {
      const float* const gate = args.gate.row(row);
      const float* const up = args.up.row(row);
      float* const y = args.y.row(row);
      each_lanes_twice(args.y.columns, [&](Index i, auto part) {
        put(decltype(f)::value(load(gate + i, part)) * load(up + i, part), y + i, part, writes);
      });
    });
  });
}

void gate_backward_kernel(const OpContext& ctx, const GateBackward& args) {
  const std::initializer_list<const void*> read = {args.dy.data, args.gate.data, args.up.data};
  const Writes of_gate_writes = writes_to(args.dgate, read);
  const Writes of_up_writes = writes_to(args.dup, read);
  const Writes any = std::max(of_gate_writes, of_up_writes);
  with_activation(args.kind, [&](auto f) {
    for_rows(ctx, args.dgate, any, [&](Index row) {
      const float* const dy = args.dy.row(row);
      const float* const gate = args.gate.row(row);
      const float* const up = args.up.row(row);
      float* const dgate = args.dgate.row(row);
      float* const dup = args.dup.row(row);
      each_lanes_twice(args.dy.columns, [&](Index i, auto part) {
        const auto d = load(dy + i, part);
        const auto at = decltype(f)::both(load(gate + i, part));
        const auto of_gate = d * load(up + i, part) * at.slope;
        put(d * at.value, dup + i, part, of_up_writes);
        put(of_gate, dgate + i, part, of_gate_writes);
      });
    });
  });
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "kernels/tensor/op_counters.h"

#include "kernels/cpu/dispatch.h"

namespace tutti::kernels {

namespace {
Error differ(const char* op) {
  return Error{ErrorCode::invalid_argument, std::string(op) + ": the matrices differ in shape"};
}
}  // namespace

Result<> activation_forward(const OpContext& ctx, const ActivationForward& args) {
  if (!fits_outputs(args.x, args.y, args.rounded)) return differ("activation_forward");
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  if (args.rounded) return rounded_on_devices_only("activation_forward");
  const OpTimer timer(Op::activation_forward, {.flop = args.x.rows * args.x.columns,
                                               .bytes = 8 * args.x.rows * args.x.columns});
  TUTTI_CPU_CALL(activation_forward_kernel)(ctx, args);
  return {};
}

Result<> activation_backward(const OpContext& ctx, const ActivationBackward& args) {
  if (!same_shape(args.x, args.dy) || !fits_outputs(args.x, args.dx, args.rounded) ||
      (args.sums != nullptr && !args.rounded)) {
    return differ("activation_backward");
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  if (args.rounded) return rounded_on_devices_only("activation_backward");
  const OpTimer timer(Op::activation_backward, {.flop = 2 * args.x.rows * args.x.columns,
                                                .bytes = 12 * args.x.rows * args.x.columns});
  TUTTI_CPU_CALL(activation_backward_kernel)(ctx, args);
  return {};
}

Result<> gate_forward(const OpContext& ctx, const GateForward& args) {
  if (!same_shape(args.gate, args.y) || !same_shape(args.up, args.y)) {
    return differ("gate_forward");
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  const OpTimer timer(Op::gate_forward, {.flop = 2 * args.y.rows * args.y.columns,
                                         .bytes = 12 * args.y.rows * args.y.columns});
  TUTTI_CPU_CALL(gate_forward_kernel)(ctx, args);
  return {};
}

Result<> gate_backward(const OpContext& ctx, const GateBackward& args) {
  if (!same_shape(args.gate, args.dy) || !same_shape(args.up, args.dy) ||
      !same_shape(args.dgate, args.dy) || !same_shape(args.dup, args.dy)) {
    return differ("gate_backward");
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  const OpTimer timer(Op::gate_backward, {.flop = 5 * args.dy.rows * args.dy.columns,
                                          .bytes = 20 * args.dy.rows * args.dy.columns});
  TUTTI_CPU_CALL(gate_backward_kernel)(ctx, args);
  return {};
}

}  // namespace tutti::kernels

#endif
