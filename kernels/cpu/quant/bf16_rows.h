// One to twelve rows by a panel of a bf16 image: widened in registers, beside their chains.
#pragma once

#include "kernels/cpu/product/product_call.h"

namespace tutti::kernels {

inline constexpr Index kBf16RowsMax = 12;

// sums[row * kImagePanel + output] go on by the chains over all of `depth`; `panel` is
// [depth][kImagePanel] bf16, `left` [rows][stride].
void run_bf16_rows(const ConstMatrix& left, const std::uint16_t* panel, float* sums);

}  // namespace tutti::kernels
