// Activations and gates, element by element, with their gradients. Which function it is comes as an
// argument, the same for all threads: memory decides over the speed.
#include "kernels/ops/elementwise/activation.h"

#include "kernels/cuda/device.h"
#include "kernels/cuda/elementwise/fours.h"
#include "kernels/cuda/elementwise/functions.h"

namespace tutti::kernels::cuda {

namespace {

__global__ void __launch_bounds__(kFourThreads)
    activation_forward_kernel(Activation kind, Rows<const float> x, Rows<float> y, Index width) {
  const FourPlace at(width);
  if (at.count <= 0) return;
  Four four = at.load(x);
  for (float& value : four.at) value = activate(kind, value).value;
  at.store(y, four);
}

__global__ void __launch_bounds__(kFourThreads)
    activation_backward_kernel(Activation kind, Rows<const float> dy, Rows<const float> x,
                               Rows<float> dx, Index width) {
  const FourPlace at(width);
  if (at.count <= 0) return;
  const Four slopes = at.load(dy);
  Four four = at.load(x);
  for (unsigned i = 0; i < kInFour; ++i) {
    four.at[i] = slopes.at[i] * activate(kind, four.at[i]).slope;
  }
  at.store(dx, four);
}

__global__ void __launch_bounds__(kFourThreads)
    gate_forward_kernel(Activation kind, Rows<const float> gate, Rows<const float> up,
                        Rows<float> y, Index width) {
  const FourPlace at(width);
  if (at.count <= 0) return;
  const Four factors = at.load(up);
  Four four = at.load(gate);
  for (unsigned i = 0; i < kInFour; ++i) {
    four.at[i] = activate(kind, four.at[i]).value * factors.at[i];
  }
  at.store(y, four);
}

struct GateSlopes {
  Rows<const float> dy, gate, up;
  Rows<float> dgate, dup;
};

// All is read before anything is written: results may lie where operands do.
__global__ void __launch_bounds__(kFourThreads)
    gate_backward_kernel(Activation kind, GateSlopes a, Index width) {
  const FourPlace at(width);
  if (at.count <= 0) return;
  const Four dy = at.load(a.dy);
  Four of_gate = at.load(a.gate);
  Four of_up = at.load(a.up);
  for (unsigned i = 0; i < kInFour; ++i) {
    const ValueSlope gate = activate(kind, of_gate.at[i]);
    of_gate.at[i] = dy.at[i] * of_up.at[i] * gate.slope;
    of_up.at[i] = dy.at[i] * gate.value;
  }
  at.store(a.dup, of_up);
  at.store(a.dgate, of_gate);
}

}  // namespace

Result<> CudaDevice::enqueue(const ActivationForward& args) {
  begin_op();
  each_row_span_of(
      [&](const RowSpan& span, const LaunchShape& shape) {
        TUTTI_LAUNCH(stream(), shape, activation_forward_kernel, args.kind, span.of(args.x),
                     span.of(args.y), span.width);
      },
      args.x, args.y);
  return end_op();
}

Result<> CudaDevice::enqueue(const ActivationBackward& args) {
  begin_op();
  each_row_span_of(
      [&](const RowSpan& span, const LaunchShape& shape) {
        TUTTI_LAUNCH(stream(), shape, activation_backward_kernel, args.kind, span.of(args.dy),
                     span.of(args.x), span.of(args.dx), span.width);
      },
      args.x, args.dy, args.dx);
  return end_op();
}

Result<> CudaDevice::enqueue(const GateForward& args) {
  begin_op();
  each_row_span_of(
      [&](const RowSpan& span, const LaunchShape& shape) {
        TUTTI_LAUNCH(stream(), shape, gate_forward_kernel, args.kind, span.of(args.gate),
                     span.of(args.up), span.of(args.y), span.width);
      },
      args.y, args.gate, args.up);
  return end_op();
}

Result<> CudaDevice::enqueue(const GateBackward& args) {
  begin_op();
  each_row_span_of(
      [&](const RowSpan& span, const LaunchShape& shape) {
        const GateSlopes slopes{span.of(args.dy), span.of(args.gate), span.of(args.up),
                                span.of(args.dgate), span.of(args.dup)};
        TUTTI_LAUNCH(stream(), shape, gate_backward_kernel, args.kind, slopes, span.width);
      },
      args.dy, args.gate, args.up, args.dgate, args.dup);
  return end_op();
}

}  // namespace tutti::kernels::cuda
