// Optimizers whose unit is the element: SGD, Lion, schedule-free AdamW. One thread block for each
// grid block, which it hashes at once.
#include <cmath>

#include "kernels/cuda/device.h"
#include "kernels/cuda/elementwise/fours.h"
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
  update_and_hash(a.weight, range, room, a.hashes, [&](unsigned i, unsigned left) {
    const Four gradient = load_four(gradients + i, left);
    Four velocity = velocities != nullptr ? load_four(velocities + i, left) : Four{};
    Four weight = load_four(weights + i, left);
    for (unsigned j = 0; j < kInFour; ++j) {
      const float g = fmaf(weight.at[j], c.decay, gradient.at[j] * c.factor);
      float step = g;
      if (velocities != nullptr) {
        const float v = fmaf(c.momentum, velocity.at[j], g);
        velocity.at[j] = v;
        step = c.nesterov ? fmaf(c.momentum, v, g) : v;
      }
      weight.at[j] = fmaf(-c.rate, step, weight.at[j]);
    }
    if (velocities != nullptr) store_four(velocities + i, left, velocity);
    store_four(weights + i, left, weight);
    return weight;
  });
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
  update_and_hash(a.weight, range, room, a.hashes, [&](unsigned i, unsigned left) {
    const Four gradient = load_four(gradients + i, left);
    Four momentum = load_four(momenta + i, left);
    Four weight = load_four(weights + i, left);
    for (unsigned j = 0; j < kInFour; ++j) {
      const float g = gradient.at[j] * c.factor;
      const float m = momentum.at[j];
      const float direction = sign(fmaf(c.beta1, m, c.rest1 * g));
      weight.at[j] = fmaf(-c.rate, direction, weight.at[j] * c.keep);
      momentum.at[j] = fmaf(c.beta2, m, c.rest2 * g);
    }
    store_four(weights + i, left, weight);
    store_four(momenta + i, left, momentum);
    return weight;
  });
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
  update_and_hash(a.weight, range, room, a.hashes, [&](unsigned i, unsigned left) {
    const Four gradient = load_four(gradients + i, left);
    Four second = load_four(seconds + i, left);
    Four weight = load_four(weights + i, left);
    Four base = load_four(bases + i, left);
    for (unsigned j = 0; j < kInFour; ++j) {
      const float g = gradient.at[j] * c.factor;
      const float v = fmaf(c.beta2, second.at[j], c.rest2 * g * g);
      const float y = weight.at[j];
      const float z = base.at[j];
      const float d = fmaf(c.decay, y, g / (sqrtf(v) / c.root + c.epsilon));
      second.at[j] = v;
      weight.at[j] = fmaf(-c.along, d, fmaf(c.average, z - y, y));
      base.at[j] = fmaf(-c.rate, d, z);
    }
    store_four(seconds + i, left, second);
    store_four(weights + i, left, weight);
    store_four(bases + i, left, base);
    return weight;
  });
}

__global__ void __launch_bounds__(kFourThreads)
    free_average_kernel(const float* weight, const float* base, float* average, float towards,
                        Index count) {
  const FourPlace at(count);
  if (at.count <= 0) return;
  const Four from = load_four(weight + at.column, at.count);
  Four four = load_four(base + at.column, at.count);
  for (unsigned i = 0; i < kInFour; ++i) {
    four.at[i] = fmaf(towards, four.at[i] - from.at[i], from.at[i]);
  }
  store_four(average + at.column, at.count, four);
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
  TUTTI_LAUNCH(stream(), span_shape(count), free_average_kernel, args.weight.data(),
               args.base.data(), args.average.data(), static_cast<float>(1.0 - 1.0 / args.beta1),
               count);
  return end_op();
}

}  // namespace tutti::kernels::cuda
