// fp32 numbers rounded to bf16 as to_bf16 does, for loops of other ops.
#pragma once

#include "kernels/ops/elementwise/bf16.h"
#include "kernels/tensor/matrix.h"

namespace tutti::kernels {

void round_to_bf16(const float* from, Bf16* to, Index count);

}  // namespace tutti::kernels
