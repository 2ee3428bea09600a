#include "jobs/models/token_check.h"

#include <fmt/core.h>

#include "kernels/ops/rotary.h"

namespace tutti::models {

Result<> check_tokens(std::span<const std::int32_t> tokens, std::uint32_t vocabulary) {
  for (const std::int32_t token : tokens) {
    if (token < 0 || static_cast<std::uint32_t>(token) >= vocabulary) {
      return Error{
          ErrorCode::invalid_argument,
          fmt::format("token {} is outside the model's vocabulary of {}", token, vocabulary)};
    }
  }
  return {};
}

std::vector<float> rotary_frequencies(const DecoderDescription& description) {
  kernels::RotaryFrequencies args{
      .width = description.head_dim, .theta = description.rope_theta, .scaling = {}};
  if (description.rope_scaling.kind == RopeScaling::Kind::llama3) {
    const RopeScaling& scaling = description.rope_scaling;
    args.scaling = kernels::Llama3Scaling{
        .factor = static_cast<float>(scaling.factor),
        .low_freq_factor = static_cast<float>(scaling.low_frequency_factor),
        .high_freq_factor = static_cast<float>(scaling.high_frequency_factor),
        .original_max_position = scaling.original_positions};
  }
  return kernels::rotary_frequencies(args);
}

}  // namespace tutti::models
