// The next token of each of several rows of logits, with its log-probability: what a decoding step
// ends in, and all that leaves a device.
//
//   logits   [rows, V]   fp32; not changed
//   draws    [rows]      host memory
//   chosen   [rows]      written
//
// A row's token is the one that Sampler::sample draws by its settings and position (sampling.h),
// the same on every device for equal logits; or the one given, and then nothing is drawn. Its
// log-probability is under softmax(logits), before temperature and cuts, with the bits of
// log_softmax on the same device; 0 where it is not wanted. A row's answer depends on that row and
// its draw only.
//
// Errors: invalid_argument (sizes; a given token outside of the row); unsupported
// (typical_p on a device).
#pragma once

#include <cstdint>
#include <span>

#include "kernels/ops/sampling.h"
#include "kernels/tensor/matrix.h"
#include "kernels/tensor/op_context.h"
#include "protocol/base/result.h"

namespace tutti::kernels {

struct TokenDraw {
  SamplingSettings settings;
  std::uint64_t position = 0;  // of the token being drawn, in its sequence
  std::int32_t given = -1;     // 0 and above: no draw, this token
  bool logprob = false;        // whether its log-probability is wanted
};

struct ChosenToken {
  std::int32_t token = 0;
  float logprob = 0.0F;
};

struct ChooseTokens {
  ConstMatrix logits;
  std::span<const TokenDraw> draws;
  ChosenToken* chosen = nullptr;
};
Result<> choose_tokens(const OpContext& ctx, const ChooseTokens& args);

}  // namespace tutti::kernels
