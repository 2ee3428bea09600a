// One to four rows by a panel of an image of codes with zero points: codes become fp32 in
// registers, beside their chains.
#pragma once

#include "kernels/ops/weights/image_layout.h"

namespace tutti::kernels {

inline constexpr Index kZeroRowsMax = 4;

// sums[row * kImagePanel + output] go on by the chains over all of left.columns, a multiple of 32;
// `groups` are the panel's, one after the other, of `group_bytes` each.
void run_zero_rows(WeightFormat format, const ConstMatrix& left, const std::uint8_t* groups,
                   Index group_bytes, float* sums);

}  // namespace tutti::kernels
