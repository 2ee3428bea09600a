// Activations and gates, element by element, with their gradients. Which function it is comes as an
// argument, the same for all threads: memory decides over the speed.
#include "kernels/ops/elementwise/activation.h"

#include "kernels/cuda/device.h"
#include "kernels/cuda/elementwise/column_sums.h"
#include "kernels/cuda/elementwise/fours.h"
#include "kernels/cuda/elementwise/functions.h"

namespace tutti::kernels::cuda {

namespace {

__global__ void __launch_bounds__(kFourThreads)
    activation_forward_kernel(Activation kind, Rows<const float> x, FourOutput y, Index width) {
  const FourPlace at(width);
  if (at.count <= 0) return;
  Four four = at.load(x);
  for (float& value : four.at) value = activate(kind, value).value;
  y.store(at, four);
}

__global__ void __launch_bounds__(kFourThreads)
    activation_backward_kernel(Activation kind, Rows<const float> dy, Rows<const float> x,
                               FourOutput dx, Index width) {
  const FourPlace at(width);
  if (at.count <= 0) return;
  const Four slopes = at.load(dy);
  Four four = at.load(x);
  for (unsigned i = 0; i < kInFour; ++i) {
    four.at[i] = slopes.at[i] * activate(kind, four.at[i]).slope;
  }
  dx.store(at, four);
}

// The same with the sums of columns, which no fp32 dx is written for: a thread has a column of a
// piece of rows, and its chain is that of column_sums. It reads some rows before it writes the
// first of them: no load goes on before a store that it may depend on (kernels/lab/gpu.md).
constexpr Index kRowsAhead = 8;

__global__ void __launch_bounds__(kSumThreads)
    activation_backward_sums_kernel(Activation kind, Rows<const float> dy, Rows<const float> x,
                                    FourOutput dx, SumPieces sums) {
  const SumPiece piece(sums);
  if (!piece.is_in(sums)) return;
  const Index c = piece.column;
  float sum = piece.start(sums);
  for (Index first = piece.begin; first < piece.end; first += kRowsAhead) {
    float slopes[kRowsAhead];
    float values[kRowsAhead];
    for (Index i = 0; i < kRowsAhead; ++i) {
      const Index row = first + i < piece.end ? first + i : first;
      slopes[i] = dy.at(row)[c];
      values[i] = x.at(row)[c];
    }
    for (Index i = 0; i < kRowsAhead; ++i) {
      const Index row = first + i;
      if (row >= piece.end) continue;
      const float value = slopes[i] * activate(kind, values[i]).slope;
      if (dx.wide.data != nullptr) dx.wide.at(row)[c] = value;
      dx.rounded.at(row)[c] = narrowed(value, dx.narrow);
      sum += value;
    }
  }
  piece.store(sums, sum);
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
  const auto narrow = narrow_of("activation_forward", {static_cast<bool>(args.rounded)});
  static_cast<void>(enqueues("wide", static_cast<bool>(args.y)));
  if (!narrow) return narrow.error();
  each_row_span_of(
      [&](const RowSpan& span, const LaunchShape& shape) {
        const FourOutput y{span.of(args.y), span.of(args.rounded), *narrow};
        TUTTI_LAUNCH(stream(), shape, activation_forward_kernel, args.kind, span.of(args.x), y,
                     span.width);
      },
      args.x, args.y, args.rounded);
  return end_op();
}

Result<> CudaDevice::enqueue(const ActivationBackward& args) {
  begin_op();
  const auto narrow = narrow_of("activation_backward", {static_cast<bool>(args.rounded)});
  static_cast<void>(enqueues("wide", static_cast<bool>(args.dx)));
  if (!narrow) return narrow.error();
  if (args.sums != nullptr) {
    if (args.x.rows == 0 || args.x.columns == 0) return {};
    SumPieces sums(args.x.rows, args.x.columns, args.sums);
    auto room = scratch_floats(sums.floats());
    if (!room) return std::move(room).error();
    sums.pieces = *room;
    const FourOutput dx{Rows(args.dx), Rows(args.rounded), *narrow};
    TUTTI_LAUNCH(stream(), sums.shape(), activation_backward_sums_kernel, args.kind, Rows(args.dy),
                 Rows(args.x), dx, sums);
    add_sums(stream(), sums, args.sums);
    return end_op();
  }
  each_row_span_of(
      [&](const RowSpan& span, const LaunchShape& shape) {
        const FourOutput dx{span.of(args.dx), span.of(args.rounded), *narrow};
        TUTTI_LAUNCH(stream(), shape, activation_backward_kernel, args.kind, span.of(args.dy),
                     span.of(args.x), dx, span.width);
      },
      args.x, args.dy, args.dx, args.rounded);
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
