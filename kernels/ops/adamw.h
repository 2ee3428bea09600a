// One AdamW step (Loshchilov & Hutter 2019, the form of PyTorch) over a range of one parameter, and
// its block hashes; or over ranges of many, as if one after the other, which a device makes in few
// launches.
//
//   weight, gradient, first, second   [n]   a range of a flattened parameter that begins on the
//   grid hashes                            [grid_blocks(n)]   of the updated weights (empty: not
//   wanted)
//
// For each element, in fp32 with fused multiply-adds, constants computed in double and rounded
// once:
//   g      = gradient * factor                    clip, token count and loss scale in one number
//   weight = weight * (1 - rate * decay)          when decay is not 0
//   first  = beta1 * first + (1 - beta1) * g
//   second = beta2 * second + (1 - beta2) * g^2
//   weight = weight - (rate / correction1) * first / (sqrt(second) / sqrt(correction2) + epsilon)
// The caller gives correction = 1 - beta^t (math.h: power). Square root and division are exact.
// Errors: invalid_argument; nothing is written then, for none of the ranges.
#pragma once

#include <cmath>
#include <span>

#include "kernels/ops/weight_hash.h"
#include "kernels/tensor/op_context.h"
#include "protocol/base/result.h"

namespace tutti::kernels {

struct AdamWSettings {
  double rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double decay = 0.0;        // 0 for parameters that do not decay
  double correction1 = 1.0;  // 1 - beta1^t
  double correction2 = 1.0;
  float factor = 1.0F;  // of the gradient
};

// The settings as fp32 numbers: computed in double, rounded once; what kernels of all devices
// compute with.
struct AdamWConstants {
  AdamWConstants() = default;
  explicit AdamWConstants(const AdamWSettings& s)
      : factor(s.factor),
        keep(static_cast<float>(1.0 - s.rate * s.decay)),
        beta1(static_cast<float>(s.beta1)),
        rest1(static_cast<float>(1.0 - s.beta1)),
        beta2(static_cast<float>(s.beta2)),
        rest2(static_cast<float>(1.0 - s.beta2)),
        root(static_cast<float>(std::sqrt(s.correction2))),
        epsilon(static_cast<float>(s.epsilon)),
        step(static_cast<float>(s.rate / s.correction1)) {}

  float factor, keep, beta1, rest1, beta2, rest2, root, epsilon, step;
};

struct AdamWRange {
  AdamWSettings settings;
  std::span<float> weight;
  std::span<const float> gradient;
  std::span<float> first;
  std::span<float> second;
  std::span<Hash128> hashes = {};
};
struct AdamWUpdate {
  std::span<const AdamWRange> ranges;
};
Result<> adamw_update(const OpContext& ctx, const AdamWUpdate& args);
inline Result<> adamw_update(const OpContext& ctx, const AdamWRange& range) {
  return adamw_update(ctx, AdamWUpdate{.ranges = {&range, 1}});
}

}  // namespace tutti::kernels
