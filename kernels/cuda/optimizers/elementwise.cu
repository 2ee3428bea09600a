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

// `velocity` null: there is none.
struct SgdArrays : Weights {
  SgdArrays() = default;
  explicit SgdArrays(const SgdRange& args)
      : Weights(args),
        velocity(args.velocity.empty() ? nullptr : args.velocity.data()),
        constants(args.settings) {}

  float* velocity;
  SgdConstants constants;
};

__global__ void __launch_bounds__(kThreads)
    sgd_kernel(const __grid_constant__ RangeTable<SgdArrays> table) {
  TUTTI_SHARED(Word, room, kKibsMax * kAccumulators);
  GridRange range(0);
  const SgdArrays& a = table.own(range);
  const SgdConstants& c = a.constants;
  float* const weights = a.weight + range.begin;
  const float* const gradients = a.gradient + range.begin;
  float* const velocities = a.velocity != nullptr ? a.velocity + range.begin : nullptr;
  for (unsigned i = threadIdx.x; i < range.size; i += kThreads) {
    const float weight = weights[i];
    const float g = fmaf(weight, c.decay, gradients[i] * c.factor);
    float step = g;
    if (velocities != nullptr) {
      const float v = fmaf(c.momentum, velocities[i], g);
      velocities[i] = v;
      step = c.nesterov ? fmaf(c.momentum, v, g) : v;
    }
    weights[i] = fmaf(-c.rate, step, weight);
  }
  hash_updated(a.weight, range, room, a.hashes);
}

// -1, 0 or 1; NaN for NaN.
__device__ float sign(float x) {
  if (x < 0.0F) return -1.0F;
  return x > 0.0F ? 1.0F : x * 0.0F;
}

struct LionArrays : Weights {
  LionArrays() = default;
  explicit LionArrays(const LionRange& args)
      : Weights(args), momentum(args.momentum.data()), constants(args.settings) {}

  float* momentum;
  LionConstants constants;
};

__global__ void __launch_bounds__(kThreads)
    lion_kernel(const __grid_constant__ RangeTable<LionArrays> table) {
  TUTTI_SHARED(Word, room, kKibsMax * kAccumulators);
  GridRange range(0);
  const LionArrays& a = table.own(range);
  const LionConstants& c = a.constants;
  float* const weights = a.weight + range.begin;
  const float* const gradients = a.gradient + range.begin;
  float* const momenta = a.momentum + range.begin;
  for (unsigned i = threadIdx.x; i < range.size; i += kThreads) {
    const float g = gradients[i] * c.factor;
    const float m = momenta[i];
    const float direction = sign(fmaf(c.beta1, m, c.rest1 * g));
    weights[i] = fmaf(-c.rate, direction, weights[i] * c.keep);
    momenta[i] = fmaf(c.beta2, m, c.rest2 * g);
  }
  hash_updated(a.weight, range, room, a.hashes);
}

struct FreeArrays : Weights {
  FreeArrays() = default;
  explicit FreeArrays(const ScheduleFreeRange& args)
      : Weights(args),
        base(args.base.data()),
        second(args.second.data()),
        constants(args.settings) {}

  float* base;
  float* second;
  ScheduleFreeConstants constants;
};

__global__ void __launch_bounds__(kThreads)
    schedule_free_kernel(const __grid_constant__ RangeTable<FreeArrays> table) {
  TUTTI_SHARED(Word, room, kKibsMax * kAccumulators);
  GridRange range(0);
  const FreeArrays& a = table.own(range);
  const ScheduleFreeConstants& c = a.constants;
  float* const weights = a.weight + range.begin;
  const float* const gradients = a.gradient + range.begin;
  float* const bases = a.base + range.begin;
  float* const seconds = a.second + range.begin;
  for (unsigned i = threadIdx.x; i < range.size; i += kThreads) {
    const float g = gradients[i] * c.factor;
    const float v = fmaf(c.beta2, seconds[i], c.rest2 * g * g);
    const float y = weights[i];
    const float z = bases[i];
    const float d = fmaf(c.decay, y, g / (sqrtf(v) / c.root + c.epsilon));
    seconds[i] = v;
    weights[i] = fmaf(-c.along, d, fmaf(c.average, z - y, y));
    bases[i] = fmaf(-c.rate, d, z);
  }
  hash_updated(a.weight, range, room, a.hashes);
}

__global__ void free_average_kernel(const float* weight, const float* base, float* average,
                                    float towards, Index count) {
  const Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) average[i] = fmaf(towards, base[i] - weight[i], weight[i]);
}

}  // namespace

Result<> CudaDevice::enqueue(const SgdUpdate& args) {
  begin_op();
  launch_ranges<SgdArrays>(args.ranges, [&](const auto& table, const LaunchShape& shape) {
    TUTTI_LAUNCH(stream(), shape, sgd_kernel, table);
  });
  return end_op();
}

Result<> CudaDevice::enqueue(const LionUpdate& args) {
  begin_op();
  launch_ranges<LionArrays>(args.ranges, [&](const auto& table, const LaunchShape& shape) {
    TUTTI_LAUNCH(stream(), shape, lion_kernel, table);
  });
  return end_op();
}

Result<> CudaDevice::enqueue(const ScheduleFreeUpdate& args) {
  begin_op();
  launch_ranges<FreeArrays>(args.ranges, [&](const auto& table, const LaunchShape& shape) {
    TUTTI_LAUNCH(stream(), shape, schedule_free_kernel, table);
  });
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
