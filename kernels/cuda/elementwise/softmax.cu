// Softmax over rows with its gradient, and its logarithm: a row is one block's.
#include "kernels/ops/elementwise/softmax.h"

#include "kernels/cuda/device.h"
#include "kernels/cuda/reduce.h"
#include "kernels/cuda/row_view.h"
#include "kernels/ops/cross_entropy.h"

namespace tutti::kernels::cuda {

namespace {

constexpr unsigned kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    log_softmax_kernel(Rows<const float> x, Rows<float> output, Index width) {
  TUTTI_SHARED(float, room, kThreads / kWarp);
  const float* const from = x.at(blockIdx.x);
  float* const to = output.at(blockIdx.x);
  const double offset = log_sum<kThreads>(from, nullptr, width, room).value();
  for (Index i = threadIdx.x; i < width; i += kThreads) {
    to[i] = static_cast<float>(static_cast<double>(from[i]) - offset);
  }
}

// A thread reads again what it wrote itself, so there is no barrier between.
__global__ void __launch_bounds__(kThreads)
    softmax_forward_kernel(Rows<const float> x, Rows<float> y, Index width) {
  TUTTI_SHARED(float, room, kThreads / kWarp);
  float* const to = y.at(blockIdx.x);
  const LogSum sum = log_sum<kThreads>(x.at(blockIdx.x), to, width, room);
  const float by = 1.0F / sum.total;
  for (Index i = threadIdx.x; i < width; i += kThreads) to[i] *= by;
}

__global__ void __launch_bounds__(kThreads)
    softmax_backward_kernel(Rows<const float> dy, Rows<const float> y, Rows<float> dx,
                            Index width) {
  TUTTI_SHARED(float, room, kThreads / kWarp);
  const float* const slope = dy.at(blockIdx.x);
  const float* const share = y.at(blockIdx.x);
  float* const to = dx.at(blockIdx.x);
  float sum = 0.0F;
  for (Index i = threadIdx.x; i < width; i += kThreads) sum = fmaf(slope[i], share[i], sum);
  const float mean = block_sum(sum, room);
  for (Index i = threadIdx.x; i < width; i += kThreads) to[i] = share[i] * (slope[i] - mean);
}

}  // namespace

Result<> CudaDevice::enqueue(const LogSoftmax& args) {
  begin_op();
  if (args.x.rows == 0) return {};
  TUTTI_LAUNCH(stream(), (LaunchShape{static_cast<unsigned>(args.x.rows), kThreads}),
               log_softmax_kernel, Rows(args.x), Rows(args.output), args.x.columns);
  return end_op();
}

Result<> CudaDevice::enqueue(const SoftmaxForward& args) {
  begin_op();
  if (args.x.rows == 0 || args.x.columns == 0) return {};
  TUTTI_LAUNCH(stream(), (LaunchShape{static_cast<unsigned>(args.x.rows), kThreads}),
               softmax_forward_kernel, Rows(args.x), Rows(args.y), args.x.columns);
  return end_op();
}

Result<> CudaDevice::enqueue(const SoftmaxBackward& args) {
  begin_op();
  if (args.y.rows == 0 || args.y.columns == 0) return {};
  TUTTI_LAUNCH(stream(), (LaunchShape{static_cast<unsigned>(args.y.rows), kThreads}),
               softmax_backward_kernel, Rows(args.dy), Rows(args.y), Rows(args.dx), args.y.columns);
  return end_op();
}

}  // namespace tutti::kernels::cuda
