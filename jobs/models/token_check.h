// What a pass checks before it computes, and what it prepares once per batch.
//
// Errors: invalid_argument with what was found.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "jobs/models/description.h"
#include "kernels/tensor/matrix.h"
#include "kernels/tensor/op_context.h"
#include "protocol/base/result.h"

namespace tutti::models {

Result<> check_tokens(std::span<const std::int32_t> tokens, std::uint32_t vocabulary);

// The rotary frequencies of a model, one per pair of dimensions of a head.
std::vector<float> rotary_frequencies(const DecoderDescription& description);

}  // namespace tutti::models
