// Frequencies in the very fp32 steps of Hugging Face Transformers, so that long positions turn by
// the same angles.
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

}  // namespace

std::vector<float> rotary_frequencies(const RotaryFrequencies& args) {
  TUTTI_ASSERT(args.width >= 0 && args.width % 2 == 0);
  std::vector<float> frequencies;
  for (Index i = 0; i < args.width; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(args.width);
    const auto base = static_cast<float>(power(args.theta, static_cast<double>(exponent)));
    const float frequency = 1.0F / base;
    frequencies.push_back(args.scaling ? scaled(frequency, *args.scaling) : frequency);
  }
  return frequencies;
}

}  // namespace tutti::kernels
