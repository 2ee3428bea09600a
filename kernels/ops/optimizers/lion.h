// One Lion step (Chen et al. 2023) over a range of one parameter that begins on the grid, and its
// block hashes.
//
//   g        = gradient * factor
//   weight   = weight * (1 - rate * decay) - rate * sign(beta1 * momentum + (1 - beta1) * g)
//   momentum = beta2 * momentum + (1 - beta2) * g
//
// In fp32 with fused multiply-adds, constants rounded once; the sign of zero is zero, that of NaN
// is NaN. Unit: element. Many ranges: as in adamw.h. Errors: invalid_argument; nothing is written
// then.
#pragma once

#include <span>

#include "kernels/ops/weight_hash.h"

namespace tutti::kernels {

struct LionSettings {
  double rate = 1e-4;
  double beta1 = 0.9;
  double beta2 = 0.99;
  double decay = 0.0;
  float factor = 1.0F;
};

// The settings as fp32 numbers: computed in double, rounded once; what kernels of all devices
// compute with.
struct LionConstants {
  LionConstants() = default;
  explicit LionConstants(const LionSettings& s)
      : factor(s.factor),
        keep(static_cast<float>(1.0 - s.rate * s.decay)),
        rate(static_cast<float>(s.rate)),
        beta1(static_cast<float>(s.beta1)),
        rest1(static_cast<float>(1.0 - s.beta1)),
        beta2(static_cast<float>(s.beta2)),
        rest2(static_cast<float>(1.0 - s.beta2)) {}

  float factor, keep, rate, beta1, rest1, beta2, rest2;
};

struct LionRange {
  LionSettings settings;
  std::span<float> weight;
  std::span<const float> gradient;
  std::span<float> momentum;
  std::span<Hash128> hashes = {};
};
struct LionUpdate {
  std::span<const LionRange> ranges;
};
Result<> lion_update(const OpContext& ctx, const LionUpdate& args);
inline Result<> lion_update(const OpContext& ctx, const LionRange& range) {
  return lion_update(ctx, LionUpdate{.ranges = {&range, 1}});
}

}  // namespace tutti::kernels
