// Integer products over the packed image (kernels/ops/weights/image_layout.h).
#pragma once

#include <cstdint>

#include "kernels/cpu/quant/row_codes.h"

namespace tutti::kernels {

// Some rows of int8 activations by one group of sixteen outputs; sums [rows][16] are continued.
struct GroupCall {
  const std::uint8_t* group = nullptr;
  Index cells = 0;
  Index rows = 0;
  const std::int8_t* x = nullptr;  // [rows][cells * 32]
  const float* scales = nullptr;   // [rows][cells]; int8_channel: [rows][cells], the first counts
  const std::int16_t* halves = nullptr;  // [rows][2 * cells]: sums of sixteen codes each
  float* sums = nullptr;
  Index sums_stride = kGroup;
  Index groups = 1;  // int8_channel: that many groups, one after the other
};
using GroupDot = void (*)(const GroupCall&);

// The kernel of each instruction set; null for formats without integer codes. All give the same
// bits.
GroupDot scalar_dot(WeightFormat format);
GroupDot avx2_dot(WeightFormat format);
GroupDot vnni_dot(WeightFormat format);

}  // namespace tutti::kernels
