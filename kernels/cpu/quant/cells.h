// The packed image of a quantised weight, byte by byte.
//
//   group (16 outputs)  [header] then for every eight cells [super] [cell] x 8
//   cell (32 inputs)    [codes] [scales]
//   codes               quad j (inputs 4j .. 4j + 3): byte 4 o + i is input 4j + i of output o
//     8 bits            quad after quad, 64 bytes each
//     4, 5, 6 bits      64 bytes for quads j and j + 4, j < 4: low and high nibbles; then
//     5 bits            64 bytes whose bit j is the fifth bit of quad j
//     6 bits            2 x 64 bytes, quads 0..3 and 4..7: bits 2 (j % 4) and up
//   scales              by output: f16 d | f16 s, f16 m | f32 a | u8 s, u8 m | i8 s of each half
//   super               of formats with 256 inputs a block: f16 d (and e) by output
//   header              of int8_channel: f32 s by output
#pragma once

#include <cstdint>

#include "kernels/cpu/quant/row_codes.h"

namespace tutti::kernels {

inline constexpr Index kGroup = 16;
inline constexpr Index kQuads = 8;

struct CellLayout {
  int bits = 8;
  Index scales = 0;  // bytes of a cell's scales
  Index super = 0;
  Index header = 0;

  constexpr Index codes() const { return bits * 64; }
  constexpr Index cell() const { return codes() + scales; }
  // Offset of cell c, and of the super record before it.
  constexpr Index cell_at(Index c) const {
    return header + c / kSuperCells * (super + kSuperCells * cell()) + super +
           c % kSuperCells * cell();
  }
  constexpr Index super_at(Index c) const {
    return header + c / kSuperCells * (super + kSuperCells * cell());
  }
  constexpr Index group_bytes(Index cells) const {
    return header + (cells + kSuperCells - 1) / kSuperCells * super + cells * cell();
  }
};

constexpr CellLayout layout_of(WeightFormat format) {
  switch (format) {
    case WeightFormat::bf16: return {.bits = 16};
    case WeightFormat::int8_channel: return {.bits = 8, .header = 64};
    case WeightFormat::int4_group: return {.bits = 4, .scales = 64};
    case WeightFormat::nf4: return {.bits = 4, .scales = 64};
    case WeightFormat::q8_0: return {.bits = 8, .scales = 32};
    case WeightFormat::q4_0: return {.bits = 4, .scales = 32};
    case WeightFormat::q5_0: return {.bits = 5, .scales = 32};
    case WeightFormat::q4_k: return {.bits = 4, .scales = 32, .super = 64};
    case WeightFormat::q5_k: return {.bits = 5, .scales = 32, .super = 64};
    case WeightFormat::q6_k: return {.bits = 6, .scales = 32, .super = 32};
  }
  return {};
}

// Some rows of int8 activations by one group of sixteen outputs; sums [rows][16] are continued.
struct GroupCall {
  const std::uint8_t* group = nullptr;
  Index cells = 0;
  Index rows = 0;
  const std::int8_t* x = nullptr;  // [rows][cells * 32]
  const float* scales = nullptr;   // [rows][cells]; int8_channel: [rows][cells], the first counts
  const std::int32_t* halves = nullptr;  // [rows][2 * cells]: sums of sixteen codes each
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
