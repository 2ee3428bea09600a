// Rotary positions (Su et al. 2021) in the half-split layout of Hugging Face, with the scalings for
// contexts longer than the trained one: linear, dynamic NTK, YaRN (Peng et al. 2023), Llama 3.
//
// Three steps, so that sines are computed once per batch and not per layer:
//   frequencies = rotary_frequencies(...)          once per model: [rotary width / 2]
//   rotary_angles(positions, frequencies)          once per batch: [tokens, rotary width / 2]
//   rotary_apply(x, cosine, sine)                  queries and keys of each layer
//
// For each head of x, with r = rotary width <= head width and i < r / 2 (dimensions from r on pass
// unchanged):
//   x'[i]       = x[i] * cosine[i] - x[i + r/2] * sine[i]
//   x'[i + r/2] = x[i + r/2] * cosine[i] + x[i] * sine[i]
// each as one product and one fused multiply-add. The angle is the fp32 product position *
// frequency, as the models were trained with; its cosine and sine are computed in double precision
// and rounded once. No libm. Errors: invalid_argument (an angle of 2^27 too), those of rounded.h;
// nothing is written.
#pragma once

#include <cstdint>
#include <span>
#include <variant>
#include <vector>

#include "kernels/ops/elementwise/rounded.h"
#include "kernels/tensor/matrix.h"
#include "kernels/tensor/op_context.h"
#include "protocol/base/result.h"

namespace tutti::kernels {

// Llama 3's rotary scaling, names as in config.json.
struct Llama3Scaling {
  float factor = 8.0F;
  float low_freq_factor = 1.0F;
  float high_freq_factor = 4.0F;
  Index original_max_position = 8192;
};

// Every frequency divided by `factor`.
struct LinearScaling {
  float factor = 1.0F;
};

// A larger theta once a sequence is longer than `original_max_position`; `length` is the
// sequence's.
struct DynamicScaling {
  float factor = 1.0F;
  Index original_max_position = 2048;
  Index length = 0;
};

// Short waves are kept, long ones divided by `factor`, those between beta_fast and beta_slow turns
// in the original context are blended; and cosine and sine grow by attention_factor (0: the paper's
// 0.1 log(factor) + 1).
struct YarnScaling {
  float factor = 1.0F;
  Index original_max_position = 2048;
  float beta_fast = 32.0F;
  float beta_slow = 1.0F;
  float attention_factor = 0.0F;
};

struct RotaryFrequencies {
  Index width = 0;  // even; how many dimensions of a head turn
  double theta = 10000.0;
  std::variant<std::monostate, LinearScaling, DynamicScaling, YarnScaling, Llama3Scaling> scaling =
      {};
};
// width / 2 frequencies, descending.
std::vector<float> rotary_frequencies(const RotaryFrequencies& args);

// What cosine and sine are multiplied by: 1 but for YaRN.
float rotary_attention_factor(const RotaryFrequencies& args);

struct RotaryAngles {
  std::span<const std::int32_t> positions;  // >= 0, one per token
  std::span<const float> frequencies;
  Matrix cosine;  // [tokens, frequencies]
  Matrix sine;
  float factor = 1.0F;  // rotary_attention_factor
};
Result<> rotary_angles(const OpContext& ctx, const RotaryAngles& args);

struct RotaryApply {
  Matrix x;  // [tokens, heads * head_width], in place, or read only, where there is `rounded`
  Index head_width = 0;
  ConstMatrix cosine;
  ConstMatrix sine;
  enum class Direction { forward, backward } direction = Direction::forward;
  RoundedMatrix rounded = {};  // x', in its place (rounded.h); where all of a head turns
};
Result<> rotary_apply(const OpContext& ctx, const RotaryApply& args);

}  // namespace tutti::kernels
