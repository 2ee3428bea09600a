// One to four rows by a panel of an fp8 image: codes become fp32 in registers, beside their chains.
#pragma once

#include "kernels/ops/weights/image_layout.h"

namespace tutti::kernels {

inline constexpr Index kFp8RowsMax = 4;

// sums[row * kImagePanel + output] go on by the chains over all of left.columns; `groups` are the
// panel's, one after the other, of `group_bytes` each.
void run_fp8_rows(WeightFormat format, const ConstMatrix& left, const std::uint8_t* groups,
                  Index group_bytes, float* sums);

}  // namespace tutti::kernels
