// fp32 numbers rounded to bf16 as to_bf16 does, and bf16 numbers widened, for other ops.
#pragma once

#include <bit>

#include "kernels/ops/elementwise/bf16.h"
#include "kernels/tensor/matrix.h"

namespace tutti::kernels {

inline float widened(Bf16 half) { return std::bit_cast<float>(std::uint32_t{half} << 16); }

void round_to_bf16(const float* from, Bf16* to, Index count);

}  // namespace tutti::kernels
