// x = 0: gradients before a shard, wherever they lie.
//
//   x   [n]
//
// Errors: unavailable (the device failed).
#pragma once

#include <span>

#include "kernels/tensor/op_context.h"
#include "protocol/base/result.h"

namespace tutti::kernels {

Result<> clear(const OpContext& ctx, std::span<float> x);

}  // namespace tutti::kernels
