// Activations and gates, element by element, with their gradients. Which function it is comes as an
// argument, the same for all threads: memory decides over the speed.
#include "kernels/ops/elementwise/activation.h"

#include <algorithm>

#include "kernels/cuda/device.h"
#include "kernels/cuda/elementwise/functions.h"
#include "kernels/cuda/row_view.h"

namespace tutti::kernels::cuda {

namespace {

constexpr unsigned kThreads = 128;
// A grid's second dimension ends at 65,535.
constexpr Index kRowsMax = 65535;

// The element of a thread: kernels walk over rows by blockIdx.y, so that bands of wider matrices
// need no division.
struct Place {
  __device__ Place()
      : row(blockIdx.y), column(static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x) {}
  Index row, column;
};

__global__ void activation_forward_kernel(Activation kind, Rows<const float> x, Rows<float> y,
                                          Index width) {
  const Place at;
  if (at.column >= width) return;
  y.at(at.row)[at.column] = activate(kind, x.at(at.row)[at.column]).value;
}

__global__ void activation_backward_kernel(Activation kind, Rows<const float> dy,
                                           Rows<const float> x, Rows<float> dx, Index width) {
  const Place at;
  if (at.column >= width) return;
  const float slope = activate(kind, x.at(at.row)[at.column]).slope;
  dx.at(at.row)[at.column] = dy.at(at.row)[at.column] * slope;
}

__global__ void gate_forward_kernel(Activation kind, Rows<const float> gate, Rows<const float> up,
                                    Rows<float> y, Index width) {
  const Place at;
  if (at.column >= width) return;
  y.at(at.row)[at.column] =
      activate(kind, gate.at(at.row)[at.column]).value * up.at(at.row)[at.column];
}

struct GateSlopes {
  Rows<const float> dy, gate, up;
  Rows<float> dgate, dup;
};

__global__ void gate_backward_kernel(Activation kind, GateSlopes a, Index width) {
  const Place at;
  if (at.column >= width) return;
  const float dy = a.dy.at(at.row)[at.column];
  const ValueSlope gate = activate(kind, a.gate.at(at.row)[at.column]);
  const float of_gate = dy * a.up.at(at.row)[at.column] * gate.slope;
  a.dup.at(at.row)[at.column] = dy * gate.value;
  a.dgate.at(at.row)[at.column] = of_gate;
}

// launch(first row, rows, shape) for pieces of rows that a grid takes.
template <class Launch>
void each_grid(Index rows, Index width, const Launch& launch) {
  if (width == 0) return;
  for (Index first = 0; first < rows; first += kRowsMax) {
    const Index count = std::min(kRowsMax, rows - first);
    launch(first, count,
           LaunchShape{dim3(blocks_for(width, kThreads), static_cast<unsigned>(count)), kThreads});
  }
}

}  // namespace

Result<> CudaDevice::enqueue(const ActivationForward& args) {
  begin_op();
  each_grid(args.x.rows, args.x.columns, [&](Index first, Index rows, const LaunchShape& shape) {
    TUTTI_LAUNCH(stream(), shape, activation_forward_kernel, args.kind,
                 Rows(args.x.row_range(first, rows)), Rows(args.y.row_range(first, rows)),
                 args.x.columns);
  });
  return end_op();
}

Result<> CudaDevice::enqueue(const ActivationBackward& args) {
  begin_op();
  each_grid(args.x.rows, args.x.columns, [&](Index first, Index rows, const LaunchShape& shape) {
    TUTTI_LAUNCH(stream(), shape, activation_backward_kernel, args.kind,
                 Rows(args.dy.row_range(first, rows)), Rows(args.x.row_range(first, rows)),
                 Rows(args.dx.row_range(first, rows)), args.x.columns);
  });
  return end_op();
}

Result<> CudaDevice::enqueue(const GateForward& args) {
  begin_op();
  each_grid(args.y.rows, args.y.columns, [&](Index first, Index rows, const LaunchShape& shape) {
    TUTTI_LAUNCH(stream(), shape, gate_forward_kernel, args.kind,
                 Rows(args.gate.row_range(first, rows)), Rows(args.up.row_range(first, rows)),
                 Rows(args.y.row_range(first, rows)), args.y.columns);
  });
  return end_op();
}

Result<> CudaDevice::enqueue(const GateBackward& args) {
  begin_op();
  each_grid(args.dy.rows, args.dy.columns, [&](Index first, Index rows, const LaunchShape& shape) {
    const GateSlopes slopes{
        Rows(args.dy.row_range(first, rows)), Rows(args.gate.row_range(first, rows)),
        Rows(args.up.row_range(first, rows)), Rows(args.dgate.row_range(first, rows)),
        Rows(args.dup.row_range(first, rows))};
    TUTTI_LAUNCH(stream(), shape, gate_backward_kernel, args.kind, slopes, args.dy.columns);
  });
  return end_op();
}

}  // namespace tutti::kernels::cuda
