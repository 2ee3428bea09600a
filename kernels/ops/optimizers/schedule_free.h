// One step of schedule-free AdamW (Defazio et al. 2024) over a range of one parameter that begins
// on the grid, and its block hashes.
//
// `weight` holds y, where gradients are taken; `base` is z, which makes the steps; the average x,
// which is evaluated and saved, lies between: y = (1 - beta1) z + beta1 x.
//
//   g      = gradient * factor
//   second = beta2 * second + (1 - beta2) * g^2
//   d      = g / (sqrt(second) / sqrt(correction2) + epsilon) + decay * y
//   y      = y + average * (z - y) - rate * (1 - beta1 * (1 - average)) * d
//   z      = z - rate * d
//
// The caller gives `average`, the weight of this step among all: rate_t^2 / sum of rate^2 so far.
// In fp32 with fused multiply-adds, constants rounded once. Unit: element. Many ranges: as in
// adamw.h. Errors: invalid_argument; nothing is written then.
#pragma once

#include <cmath>
#include <span>

#include "kernels/ops/weight_hash.h"

namespace tutti::kernels {

struct ScheduleFreeSettings {
  double rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double decay = 0.0;
  double correction2 = 1.0;  // 1 - beta2^t
  double average = 1.0;
  float factor = 1.0F;
};

// The settings as fp32 numbers: computed in double, rounded once; what kernels of all devices
// compute with.
struct ScheduleFreeConstants {
  ScheduleFreeConstants() = default;
  explicit ScheduleFreeConstants(const ScheduleFreeSettings& s)
      : factor(s.factor),
        beta2(static_cast<float>(s.beta2)),
        rest2(static_cast<float>(1.0 - s.beta2)),
        root(static_cast<float>(std::sqrt(s.correction2))),
        epsilon(static_cast<float>(s.epsilon)),
        decay(static_cast<float>(s.decay)),
        average(static_cast<float>(s.average)),
        rate(static_cast<float>(s.rate)),
        along(static_cast<float>(s.rate * (1.0 - s.beta1 * (1.0 - s.average)))) {}

  float factor, beta2, rest2, root, epsilon, decay, average, rate;
  float along;  // how far y goes along d
};

struct ScheduleFreeRange {
  ScheduleFreeSettings settings;
  std::span<float> weight;
  std::span<const float> gradient;
  std::span<float> base;  // begins as a copy of the weights
  std::span<float> second;
  std::span<Hash128> hashes = {};
};
struct ScheduleFreeUpdate {
  std::span<const ScheduleFreeRange> ranges;
};
Result<> schedule_free_update(const OpContext& ctx, const ScheduleFreeUpdate& args);
inline Result<> schedule_free_update(const OpContext& ctx, const ScheduleFreeRange& range) {
  return schedule_free_update(ctx, ScheduleFreeUpdate{.ranges = {&range, 1}});
}

// x = y + (1 - 1 / beta1) * (z - y). x may be y or z.
struct ScheduleFreeAverage {
  double beta1 = 0.9;
  std::span<const float> weight;
  std::span<const float> base;
  std::span<float> average;
};
Result<> schedule_free_average(const OpContext& ctx, const ScheduleFreeAverage& args);

}  // namespace tutti::kernels
