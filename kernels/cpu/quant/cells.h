// Integer products over the packed image (kernels/ops/weights/image_layout.h).
#pragma once

#include <cstdint>

#include "kernels/cpu/quant/row_codes.h"

namespace tutti::kernels {

// What the sum S of a cell's 32 codes of x adds, whoever the output: the integer -zero S that sums
// of code products start from, or S itself, as a minimum is multiplied by it. Both are exact.
union CellTerm {
  std::int32_t start;
  float sum;
};
// Formats with one zero for all codes (start; of int8_channel the first counts, for the whole row),
// and with a minimum (sum).
constexpr bool starts_cells(WeightFormat format) {
  return format == WeightFormat::q8_0 || format == WeightFormat::q4_0 ||
         format == WeightFormat::q5_0;
}
constexpr bool has_minimum(WeightFormat format) {
  return format == WeightFormat::int4_group || format == WeightFormat::q4_k ||
         format == WeightFormat::q5_k;
}

// Some rows of int8 activations by groups of sixteen outputs; sums [rows][16 * groups] are
// continued.
struct GroupCall {
  const std::uint8_t* group = nullptr;
  Index cells = 0;
  Index rows = 0;
  const std::int8_t* x = nullptr;  // [rows][cells * 32]
  const float* scales = nullptr;   // [rows][cells]; int8_channel: [rows][cells], the first counts
  const std::int16_t* halves = nullptr;  // [rows][2 * cells]: sums of sixteen codes each
  float* sums = nullptr;
  Index sums_stride = kGroup;
  Index groups = 1;                    // one after the other, sixteen sums each
  const CellTerm* terms = nullptr;     // [rows][cells]; of q6_k not read
  const std::uint8_t* next = nullptr;  // the groups that are read after these, if any
};
using GroupDot = void (*)(const GroupCall&);

// The kernel of each instruction set; null for formats without integer codes. All give the same
// bits.
GroupDot scalar_dot(WeightFormat format);
GroupDot avx2_dot(WeightFormat format);
GroupDot vnni_dot(WeightFormat format);
GroupDot amx_dot(WeightFormat format);

}  // namespace tutti::kernels
