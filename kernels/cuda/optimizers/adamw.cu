// AdamW, block sums of squares and block hashes: passes over flattened parameters, one thread block
// for each grid block.
#include "kernels/ops/adamw.h"

#include "kernels/cuda/device.h"
#include "kernels/cuda/optimizers/grid_range.h"
#include "kernels/cuda/reduce.h"
#include "kernels/ops/gradient_norm.h"

namespace tutti::kernels::cuda {

namespace {

constexpr unsigned kThreads = kGridThreads;

struct AdamWArrays {
  float* weight;
  const float* gradient;
  float* first;
  float* second;
  Hash128* hashes;  // null: not wanted
  Index count;
};

__global__ void __launch_bounds__(kThreads) adamw_kernel(AdamWArrays a, AdamWConstants c) {
  TUTTI_SHARED(Word, room, kKibsMax * kAccumulators);
  const GridRange range(a.count);
  for (Index i = range.begin + threadIdx.x; i < range.end; i += kThreads) {
    const float g = a.gradient[i] * c.factor;
    const float first = fmaf(c.beta1, a.first[i], c.rest1 * g);
    const float second = fmaf(c.beta2, a.second[i], c.rest2 * g * g);
    const float scale = sqrtf(second) / c.root + c.epsilon;
    a.weight[i] = fmaf(-c.step, first / scale, a.weight[i] * c.keep);
    a.first[i] = first;
    a.second[i] = second;
  }
  hash_updated(a.weight, range, room, a.hashes);
}

__global__ void __launch_bounds__(kThreads)
    hash_blocks_kernel(const float* values, Index count, Hash128* hashes) {
  TUTTI_SHARED(Word, room, kKibsMax * kAccumulators);
  store_hash(values, GridRange(count), room, hashes);
}

// Each thread a chain in double precision over its elements, where a square of an fp32 number is
// exact.
__global__ void __launch_bounds__(kThreads)
    square_sums_kernel(const float* values, Index count, double* sums) {
  TUTTI_SHARED(double, room, kThreads / kWarp);
  const GridRange range(count);
  double sum = 0.0;
  for (Index i = range.begin + threadIdx.x; i < range.end; i += kThreads) {
    const auto value = static_cast<double>(values[i]);
    sum = fma(value, value, sum);
  }
  sum = block_sum(sum, room);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

}  // namespace

Result<> CudaDevice::enqueue(const AdamWUpdate& args) {
  begin_op();
  const auto count = static_cast<Index>(args.weight.size());
  if (count == 0) return {};
  const AdamWArrays arrays{args.weight.data(),
                           args.gradient.data(),
                           args.first.data(),
                           args.second.data(),
                           args.hashes.empty() ? nullptr : args.hashes.data(),
                           count};
  TUTTI_LAUNCH(stream(), (LaunchShape{blocks_for(count, kGridBlock), kThreads}), adamw_kernel,
               arrays, AdamWConstants(args.settings));
  return end_op();
}

Result<> CudaDevice::enqueue(const HashBlocks& args) {
  begin_op();
  const auto count = static_cast<Index>(args.values.size());
  if (count == 0) return {};
  TUTTI_LAUNCH(stream(), (LaunchShape{blocks_for(count, kGridBlock), kThreads}), hash_blocks_kernel,
               args.values.data(), count, args.hashes.data());
  return end_op();
}

Result<> CudaDevice::enqueue(const SquareSums& args) {
  begin_op();
  const auto count = static_cast<Index>(args.values.size());
  if (count == 0) return {};
  TUTTI_LAUNCH(stream(), (LaunchShape{blocks_for(count, kGridBlock), kThreads}), square_sums_kernel,
               args.values.data(), count, args.sums.data());
  return end_op();
}

}  // namespace tutti::kernels::cuda
