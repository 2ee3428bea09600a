// One to four rows by a panel of an nf4 image: codes become fp32 in registers, beside their chains.
#pragma once

#include <type_traits>

#include "kernels/cpu/product/product_call.h"
#include "kernels/ops/weights/image_layout.h"

namespace tutti::kernels {

inline constexpr Index kNf4RowsMax = 4;

// sums[row * kImagePanel + output] go on by the chains over all of left.columns, a multiple of 32;
// `groups` are the panel's, one after the other, of `group_bytes` each.
void run_nf4_rows(const ConstMatrix& left, const std::uint8_t* groups, Index group_bytes,
                  float* sums);
// The same with AVX-512.
void run_nf4_rows_wide(const ConstMatrix& left, const std::uint8_t* groups, Index group_bytes,
                       float* sums);

// All groups of a panel: Kernel::run<kRows, kGroups> takes Kernel::kTogether<kRows> of them side by
// side. A Kernel is of its own file alone, as its instruction set is.
template <class Kernel>
void run_nf4_panel(const ConstMatrix& left, const std::uint8_t* groups, Index group_bytes,
                   float* sums) {
  const auto run = [&]<int kRows>(std::integral_constant<int, kRows>) {
    constexpr int kGroups = Kernel::template kTogether<kRows>;
    for (Index g = 0; g < kGroupsTogether; g += kGroups) {
      Kernel::template run<kRows, kGroups>(left, groups + g * group_bytes, group_bytes,
                                           sums + g * kGroup);
    }
  };
  switch (left.rows) {
    case 1: return run(std::integral_constant<int, 1>{});
    case 2: return run(std::integral_constant<int, 2>{});
    case 3: return run(std::integral_constant<int, 3>{});
    default: return run(std::integral_constant<int, kNf4RowsMax>{});
  }
}

}  // namespace tutti::kernels
