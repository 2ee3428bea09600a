// Log-probabilities of the tokens of a text under a model.
//
// Texts longer than the context are scored in windows that overlap by half: every token but those
// of the first window has at least half a context before it.
//
// Threads: one at a time. Errors: invalid_argument (fewer than two tokens, an id outside the
// vocabulary).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "jobs/serving/engine.h"
#include "kernels/tensor/op_context.h"
#include "protocol/base/result.h"

namespace tutti::serving {

// Of tokens 1 .. n-1, each given those before it. `window` is the longest context used; 0: the
// model's.
Result<std::vector<float>> score_tokens(const EngineModel& model, kernels::OpContext ctx,
                                        std::span<const std::int32_t> tokens, std::uint32_t window);

}  // namespace tutti::serving
