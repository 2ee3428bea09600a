// One step of stochastic gradient descent with momentum (the form of PyTorch) over a range of one
// parameter that begins on the grid, and its block hashes.
//
//   g        = gradient * factor + decay * weight
//   velocity = momentum * velocity + g
//   weight   = weight - rate * (velocity, or g + momentum * velocity with Nesterov's form)
//
// In fp32 with fused multiply-adds, constants rounded once. Unit: element. Many ranges: as in
// adamw.h. Without momentum the velocity may be empty. Errors: invalid_argument; nothing is written
// then.
#pragma once

#include <span>

#include "kernels/ops/weight_hash.h"

namespace tutti::kernels {

struct SgdSettings {
  double rate = 1e-2;
  double momentum = 0.9;
  enum class Form { plain, nesterov } form = Form::plain;
  double decay = 0.0;
  float factor = 1.0F;  // of the gradient: clip, token count and loss scale in one number
};

// The settings as fp32 numbers, rounded once; what kernels of all devices compute with.
struct SgdConstants {
  SgdConstants() = default;
  explicit SgdConstants(const SgdSettings& s)
      : factor(s.factor),
        decay(static_cast<float>(s.decay)),
        momentum(static_cast<float>(s.momentum)),
        rate(static_cast<float>(s.rate)),
        nesterov(s.form == SgdSettings::Form::nesterov) {}

  float factor, decay, momentum, rate;
  bool nesterov;
};

struct SgdRange {
  SgdSettings settings;
  std::span<float> weight;
  std::span<const float> gradient;
  std::span<float> velocity;
  std::span<Hash128> hashes = {};  // of the grid blocks of the updated weights; empty: not wanted
};
struct SgdUpdate {
  std::span<const SgdRange> ranges;
};
Result<> sgd_update(const OpContext& ctx, const SgdUpdate& args);
inline Result<> sgd_update(const OpContext& ctx, const SgdRange& range) {
  return sgd_update(ctx, SgdUpdate{.ranges = {&range, 1}});
}

}  // namespace tutti::kernels
