// Optimizers whose unit is the element: SGD, Lion, schedule-free AdamW. One thread block for each
// grid block, which it hashes at once.
#include <cmath>

#include "kernels/cuda/device.h"
#include "kernels/cuda/optimizers/grid_range.h"
#include "kernels/ops/optimizers/lion.h"
#include "kernels/ops/optimizers/schedule_free.h"
#include "kernels/ops/optimizers/sgd.h"

namespace tutti::kernels::cuda {

namespace {

constexpr unsigned kThreads = kGridThreads;

// A weight and its gradient; states are the kernels' own.
struct Weights {
  template <class Update>
  explicit Weights(const Update& args)
      : weight(args.weight.data()),
        gradient(args.gradient.data()),
        hashes(args.hashes.empty() ? nullptr : args.hashes.data()),
        count(static_cast<Index>(args.weight.size())) {}

  float* weight;
  const float* gradient;
  Hash128* hashes;  // null: not wanted
  Index count;
};

// `velocity` null: there is none.
__global__ void __launch_bounds__(kThreads) sgd_kernel(Weights a, float* velocity, SgdConstants c) {
  TUTTI_SHARED(Word, room, kKibsMax * kAccumulators);
  const GridRange range(a.count);
  for (Index i = range.begin + threadIdx.x; i < range.end; i += kThreads) {
    const float weight = a.weight[i];
    const float g = fmaf(weight, c.decay, a.gradient[i] * c.factor);
    float step = g;
    if (velocity != nullptr) {
      const float v = fmaf(c.momentum, velocity[i], g);
      velocity[i] = v;
      step = c.nesterov ? fmaf(c.momentum, v, g) : v;
    }
    a.weight[i] = fmaf(-c.rate, step, weight);
  }
  hash_updated(a.weight, range, room, a.hashes);
}

// -1, 0 or 1; NaN for NaN.
__device__ float sign(float x) {
  if (x < 0.0F) return -1.0F;
  return x > 0.0F ? 1.0F : x * 0.0F;
}

__global__ void __launch_bounds__(kThreads)
    lion_kernel(Weights a, float* momentum, LionConstants c) {
  TUTTI_SHARED(Word, room, kKibsMax * kAccumulators);
  const GridRange range(a.count);
  for (Index i = range.begin + threadIdx.x; i < range.end; i += kThreads) {
    const float g = a.gradient[i] * c.factor;
    const float m = momentum[i];
    const float direction = sign(fmaf(c.beta1, m, c.rest1 * g));
    a.weight[i] = fmaf(-c.rate, direction, a.weight[i] * c.keep);
    momentum[i] = fmaf(c.beta2, m, c.rest2 * g);
  }
  hash_updated(a.weight, range, room, a.hashes);
}

struct FreeStates {
  float* base;
  float* second;
};

__global__ void __launch_bounds__(kThreads)
    schedule_free_kernel(Weights a, FreeStates states, ScheduleFreeConstants c) {
  TUTTI_SHARED(Word, room, kKibsMax * kAccumulators);
  const GridRange range(a.count);
  for (Index i = range.begin + threadIdx.x; i < range.end; i += kThreads) {
    const float g = a.gradient[i] * c.factor;
    const float v = fmaf(c.beta2, states.second[i], c.rest2 * g * g);
    const float y = a.weight[i];
    const float z = states.base[i];
    const float d = fmaf(c.decay, y, g / (sqrtf(v) / c.root + c.epsilon));
    states.second[i] = v;
    a.weight[i] = fmaf(-c.along, d, fmaf(c.average, z - y, y));
    states.base[i] = fmaf(-c.rate, d, z);
  }
  hash_updated(a.weight, range, room, a.hashes);
}

__global__ void free_average_kernel(const float* weight, const float* base, float* average,
                                    float towards, Index count) {
  const Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) average[i] = fmaf(towards, base[i] - weight[i], weight[i]);
}

LaunchShape shape_for(Index count) { return {blocks_for(count, kGridBlock), kThreads}; }

}  // namespace

Result<> CudaDevice::enqueue(const SgdUpdate& args) {
  begin_op();
  const Weights weights(args);
  if (weights.count == 0) return {};
  TUTTI_LAUNCH(stream(), shape_for(weights.count), sgd_kernel, weights,
               args.velocity.empty() ? nullptr : args.velocity.data(), SgdConstants(args.settings));
  return end_op();
}

Result<> CudaDevice::enqueue(const LionUpdate& args) {
  begin_op();
  const Weights weights(args);
  if (weights.count == 0) return {};
  TUTTI_LAUNCH(stream(), shape_for(weights.count), lion_kernel, weights, args.momentum.data(),
               LionConstants(args.settings));
  return end_op();
}

Result<> CudaDevice::enqueue(const ScheduleFreeUpdate& args) {
  begin_op();
  const Weights weights(args);
  if (weights.count == 0) return {};
  const FreeStates states{args.base.data(), args.second.data()};
  TUTTI_LAUNCH(stream(), shape_for(weights.count), schedule_free_kernel, weights, states,
               ScheduleFreeConstants(args.settings));
  return end_op();
}

Result<> CudaDevice::enqueue(const ScheduleFreeAverage& args) {
  begin_op();
  const auto count = static_cast<Index>(args.weight.size());
  if (count == 0) return {};
  TUTTI_LAUNCH(stream(), (LaunchShape{blocks_for(count, kThreads), kThreads}), free_average_kernel,
               args.weight.data(), args.base.data(), args.average.data(),
               static_cast<float>(1.0 - 1.0 / args.beta1), count);
  return end_op();
}

}  // namespace tutti::kernels::cuda
