// One to four rows by a panel of an nf4 image: codes become fp32 in registers, beside their chains.
#pragma once

#include "kernels/cpu/product/product_call.h"

namespace tutti::kernels {

inline constexpr Index kNf4RowsMax = 4;

// sums[row * kImagePanel + output] go on by the chains over all of left.columns, a multiple of 32;
// `groups` are the panel's, one after the other, of `group_bytes` each.
void run_nf4_rows(const ConstMatrix& left, const std::uint8_t* groups, Index group_bytes,
                  float* sums);
// The same with AVX-512.
void run_nf4_rows_wide(const ConstMatrix& left, const std::uint8_t* groups, Index group_bytes,
                       float* sums);

}  // namespace tutti::kernels
