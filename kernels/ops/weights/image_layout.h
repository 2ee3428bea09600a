// The packed image of a quantised weight, byte by byte: one layout for every device that multiplies
// by it.
//
//   group (16 outputs)  [header] then for every eight cells [super] [cell] x 8
//   cell (32 inputs)    [codes] [scales]
//   codes               quad j (inputs 4j .. 4j + 3): byte 4 o + i is input 4j + i of output o
//     8 bits            quad after quad, 64 bytes each; of fp8 16 bytes an input, by output
//     4, 5, 6 bits      64 bytes for quads j and j + 4, j < 4: low and high nibbles; then
//     5 bits            64 bytes whose bit j is the fifth bit of quad j
//     6 bits            2 x 64 bytes, quads 0..3 and 4..7: bits 2 (j % 4) and up
//   scales              by output: f16 d | f16 s, f16 m | f32 a | u8 s, u8 m | i8 s of each half
//                       of formats with zeros: f16 s, then u8 z; of *_order those of the table's
//                       entry of the cell's number, then u16 e by input
//   super               of formats with 256 inputs a block: f16 d (and e) by output
//                       fp8: f32 s by output of the first four cells, then of the others; of e4m3
//                       256 s, for a code's bits as a half's are the number's 256th part
//   header              of int8_channel: f32 s by output
//
// Groups lie one after the other; of bf16, four of them side by side for each input, as in the fp32
// image.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/ops/weights/weight_format.h"

namespace tutti::kernels {

// Inputs of a cell, the block that all formats share, and cells of a block of 256.
inline constexpr Index kCell = 32;
inline constexpr Index kSuperCells = 8;
inline constexpr Index kGroup = 16;  // outputs
inline constexpr Index kQuads = 8;
// Groups side by side in the image of bf16; images have whole ones of these.
inline constexpr Index kGroupsTogether = 4;
// Cells of a block of fp8.
inline constexpr Index kFp8Cells = 4;
// In the scales of a cell of formats with zeros: where the zeros are, and each input's entry.
inline constexpr Index kZerosAt = 2 * kGroup;
inline constexpr Index kEntriesAt = kZerosAt + kGroup;

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
    case WeightFormat::fp8_e4m3:
    case WeightFormat::fp8_e5m2: return {.bits = 8, .super = 128};
    case WeightFormat::int4_zero: return {.bits = 4, .scales = kEntriesAt};
    case WeightFormat::int8_zero: return {.bits = 8, .scales = kEntriesAt};
    case WeightFormat::int4_order: return {.bits = 4, .scales = kEntriesAt + 2 * kCell};
    case WeightFormat::int8_order: return {.bits = 8, .scales = kEntriesAt + 2 * kCell};
  }
  return {};
}

// nf4: quantiles of a normal distribution, scaled to [-1, 1], zero among them.
inline constexpr std::array<float, 16> kNormalFloats = {-1.0F,
                                                        -0.6961928009986877F,
                                                        -0.5250730514526367F,
                                                        -0.39491748809814453F,
                                                        -0.28444138169288635F,
                                                        -0.18477343022823334F,
                                                        -0.09105003625154495F,
                                                        0.0F,
                                                        0.07958029955625534F,
                                                        0.16093020141124725F,
                                                        0.24611230194568634F,
                                                        0.33791524171829224F,
                                                        0.44070982933044434F,
                                                        0.5626170039176941F,
                                                        0.7229568362236023F,
                                                        1.0F};

// The half whose bits a code of fp8 gives: the number itself, or of e4m3 its 256th part (and no
// NaN).
constexpr std::uint16_t half_of_fp8(WeightFormat format, std::uint8_t code) {
  const unsigned wide = code;
  return static_cast<std::uint16_t>(
      format == WeightFormat::fp8_e5m2 ? wide << 8 : (wide & 0x80U) << 8 | (wide & 0x7fU) << 7);
}

// What a code minus this is multiplied by the scale; 0 where the format has a minimum or a table.
constexpr int zero_of(WeightFormat format) {
  switch (format) {
    case WeightFormat::int8_channel:
    case WeightFormat::q8_0: return 128;
    case WeightFormat::q4_0: return 8;
    case WeightFormat::q5_0: return 16;
    case WeightFormat::q6_k: return 32;
    default: return 0;
  }
}

}  // namespace tutti::kernels
