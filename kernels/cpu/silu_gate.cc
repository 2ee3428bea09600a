#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/silu_gate.cc"
#include <hwy/foreach_target.h>

#include "kernels/cpu/caches/streamed-inl.h"
#include "kernels/cpu/exp-inl.h"
#include "kernels/cpu/row_split.h"
#include "kernels/ops/silu_gate.h"
#include "kernels/tensor/device.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

template <SomeLanes L>
HWY_INLINE L sigmoid(const L& x) {
  const Lanes one = splat(1.0F);
  return one / (one + exp(zero() - x));
}

template <SomeLanes L>
HWY_INLINE L gated(const L& gate, const L& up) {
  return gate * sigmoid(gate) * up;
}

void silu_gate_forward_kernel(const OpContext& ctx, const SiluGateForward& args) {
  const Writes writes = writes_to(args.y, {args.gate.data, args.up.data});
  ctx.pool->parallel_for(
      args.y.rows, rows_in_piece(args.y.columns), [&](int, Index begin, Index end) {
        for (Index row = begin; row < end; ++row) {
          const float* const gate = args.gate.row(row);
          const float* const up = args.up.row(row);
          float* const y = args.y.row(row);
          each_lanes_twice(args.y.columns, [&](Index i, auto part) {
            put(gated(load(gate + i, part), load(up + i, part)), y + i, part, writes);
          });
        }
        end_writes(writes);
      });
}

template <SomeLanes L>
struct GateGradients {
  L gate, up;
};

template <SomeLanes L>
HWY_INLINE GateGradients<L> gate_gradients(const L& dy, const L& gate, const L& up) {
  const Lanes one = splat(1.0F);
  const L s = sigmoid(gate);
  const L slope = s * fma(gate, one - s, one);
  return {dy * up * slope, dy * (gate * s)};
}

void silu_gate_backward_kernel(const OpContext& ctx, const SiluGateBackward& args) {
  const std::initializer_list<const void*> read = {args.dy.data, args.gate.data, args.up.data};
  const Writes of_gate = writes_to(args.dgate, read);
  const Writes of_up = writes_to(args.dup, read);
  ctx.pool->parallel_for(
      args.dy.rows, rows_in_piece(args.dy.columns), [&](int, Index begin, Index end) {
        for (Index row = begin; row < end; ++row) {
          const float* const dy = args.dy.row(row);
          const float* const gate = args.gate.row(row);
          const float* const up = args.up.row(row);
          float* const dgate = args.dgate.row(row);
          float* const dup = args.dup.row(row);
          each_lanes_twice(args.dy.columns, [&](Index i, auto part) {
            const auto d =
                gate_gradients(load(dy + i, part), load(gate + i, part), load(up + i, part));
            put(d.gate, dgate + i, part, of_gate);
            put(d.up, dup + i, part, of_up);
          });
        }
        end_writes(std::max(of_gate, of_up));
      });
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "kernels/tensor/op_counters.h"

#include "kernels/cpu/dispatch.h"

namespace tutti::kernels {

Result<> silu_gate_forward(const OpContext& ctx, const SiluGateForward& args) {
  if (!fits_outputs(args.gate, args.y, args.rounded) || !same_shape(args.up, args.gate)) {
    return Error{ErrorCode::invalid_argument, "silu_gate_forward: gate, up, y differ in shape"};
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  if (args.rounded) return rounded_on_devices_only("silu_gate_forward");
  const OpTimer timer(Op::silu_gate_forward, {.flop = 2 * args.y.rows * args.y.columns,
                                              .bytes = 12 * args.y.rows * args.y.columns});
  TUTTI_CPU_CALL(silu_gate_forward_kernel)(ctx, args);
  return {};
}

Result<> silu_gate_backward(const OpContext& ctx, const SiluGateBackward& args) {
  if (!same_shape(args.gate, args.dy) || !same_shape(args.up, args.dy) ||
      !fits_outputs(args.dy, args.dgate, args.dgate_rounded) ||
      !fits_outputs(args.dy, args.dup, args.dup_rounded)) {
    return Error{ErrorCode::invalid_argument,
                 "silu_gate_backward: dy, gate, up, dgate, dup differ in shape"};
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  if (args.dgate_rounded || args.dup_rounded) return rounded_on_devices_only("silu_gate_backward");
  const OpTimer timer(Op::silu_gate_backward, {.flop = 5 * args.dy.rows * args.dy.columns,
                                               .bytes = 20 * args.dy.rows * args.dy.columns});
  TUTTI_CPU_CALL(silu_gate_backward_kernel)(ctx, args);
  return {};
}

}  // namespace tutti::kernels

#endif
