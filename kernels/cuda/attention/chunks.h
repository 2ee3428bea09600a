// How many keys a query meets in one go before its sums begin anew (attention_softmax.h).
#pragma once

#include "kernels/ops/attention.h"

namespace tutti::kernels::cuda {

inline constexpr Index kChunkBlocks = 16;
inline constexpr Index kChunkKeys = kChunkBlocks * kKeyBlock;

}  // namespace tutti::kernels::cuda
