// Frequencies in the very fp32 steps of Hugging Face Transformers, so that long positions turn by
// the same angles.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/ops/math.h"
#include "kernels/ops/rotary.h"

namespace tutti::kernels {

namespace {

constexpr float kTwoPi = 6.283185307179586F;

// Long waves turn `factor` times slower, short ones are kept, those between are blended.
float scaled(float frequency, const Llama3Scaling& scaling) {
  const auto length = static_cast<float>(scaling.original_max_position);
  const float wave = kTwoPi / frequency;
  if (wave > length / scaling.low_freq_factor) return frequency / scaling.factor;
  if (wave < length / scaling.high_freq_factor) return frequency;
  const float smooth = (length / wave - scaling.low_freq_factor) /
                       (scaling.high_freq_factor - scaling.low_freq_factor);
  return (1.0F - smooth) * frequency / scaling.factor + smooth * frequency;
}

// How many of `width` dimensions turn at least `turns` times in the original context; not rounded.
double dimensions_with(const RotaryFrequencies& args, const YarnScaling& scaling, float turns) {
  const auto length = static_cast<double>(scaling.original_max_position);
  return static_cast<double>(args.width) *
         log(length / (static_cast<double>(turns) * 2.0 * 3.141592653589793)) /
         (2.0 * log(args.theta));
}

// The first and the last frequency between which YaRN blends.
struct Ramp {
  float low = 0.0F;
  float high = 0.0F;

  float at(Index i) const {
    return std::clamp((static_cast<float>(i) - low) / (high - low), 0.0F, 1.0F);
  }
};

Ramp ramp_of(const RotaryFrequencies& args, const YarnScaling& scaling) {
  const double low = std::floor(dimensions_with(args, scaling, scaling.beta_fast));
  const double high = std::ceil(dimensions_with(args, scaling, scaling.beta_slow));
  Ramp ramp{static_cast<float>(std::max(low, 0.0)),
            static_cast<float>(std::min(high, static_cast<double>(args.width - 1)))};
  if (ramp.low == ramp.high) ramp.high += 0.001F;
  return ramp;
}

float scaled(float frequency, const YarnScaling& scaling, float blend) {
  const float slow = frequency / scaling.factor;
  return slow * blend + frequency * (1.0F - blend);
}

double theta_of(const RotaryFrequencies& args) {
  const auto* const dynamic = std::get_if<DynamicScaling>(&args.scaling);
  if (dynamic == nullptr || dynamic->length <= dynamic->original_max_position) return args.theta;
  const auto factor = static_cast<double>(dynamic->factor);
  const double stretch = factor * static_cast<double>(dynamic->length) /
                             static_cast<double>(dynamic->original_max_position) -
                         (factor - 1.0);
  const auto width = static_cast<double>(args.width);
  return args.theta * power(stretch, width / (width - 2.0));
}

}  // namespace

std::vector<float> rotary_frequencies(const RotaryFrequencies& args) {
  TUTTI_ASSERT(args.width >= 0 && args.width % 2 == 0);
  std::vector<float> frequencies;
  const double theta = theta_of(args);
  const auto* const linear = std::get_if<LinearScaling>(&args.scaling);
  const auto* const yarn = std::get_if<YarnScaling>(&args.scaling);
  const auto* const llama3 = std::get_if<Llama3Scaling>(&args.scaling);
  const Ramp ramp = yarn != nullptr ? ramp_of(args, *yarn) : Ramp{};
  for (Index i = 0; i < args.width; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(args.width);
    const auto base = static_cast<float>(power(theta, static_cast<double>(exponent)));
    float frequency = 1.0F / base;
    if (linear != nullptr) frequency /= linear->factor;
    if (yarn != nullptr) frequency = scaled(frequency, *yarn, ramp.at(i / 2));
    if (llama3 != nullptr) frequency = scaled(frequency, *llama3);
    frequencies.push_back(frequency);
  }
  return frequencies;
}

float rotary_attention_factor(const RotaryFrequencies& args) {
  const auto* const yarn = std::get_if<YarnScaling>(&args.scaling);
  if (yarn == nullptr) return 1.0F;
  if (yarn->attention_factor > 0.0F) return yarn->attention_factor;
  if (yarn->factor <= 1.0F) return 1.0F;
  return static_cast<float>(0.1 * log(static_cast<double>(yarn->factor)) + 1.0);
}

}  // namespace tutti::kernels
