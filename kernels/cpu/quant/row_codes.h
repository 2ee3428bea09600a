// One row of a quantised weight, taken apart: unsigned codes and scales by blocks of 32 inputs, the
// same for all formats.
//
// What reads rows (dequantisation, the packed image) sees this and no bytes of blocks.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/ops/weights/image_layout.h"

namespace tutti::kernels {

// A code c of 32-block b stands for a value of the format; which fields are used:
//   bf16          wide[i], the value's upper half; no code
//   int8_channel  scale[0] (c - 128)
//   int4_group    half[b] c + half_min[b]
//   nf4           scale[b / 2] table[c]
//   q8_0 q4_0 q5_0  half[b] (c - zero), zero 128, 8, 16
//   q4_k q5_k     (half[b / 8] sub[b]) c - (half_min[b / 8] sub_min[b])
//   q6_k          (half[b / 8] int8(sub[2 b + i / 16])) (c - 32)
//   fp8           scale[b / 4] fp8_value(c)
//   *_zero        half[b] (c - sub[b])
//   *_order       half[e] (c - sub[e]), e = wide[i]
struct RowCodes {
  std::vector<std::uint8_t> code;
  std::vector<float> scale;
  std::vector<std::uint16_t> half;      // f16
  std::vector<std::uint16_t> half_min;  // f16
  std::vector<std::uint8_t> sub;
  std::vector<std::uint8_t> sub_min;
  std::vector<std::uint16_t> wide;  // bf16, or entries; whole cells of them

  // Room for whole cells.
  void resize(Index inputs);
};

// bf16: the nearest, ties to even; a finite value beyond the largest becomes infinite.
std::uint16_t upper_half(float value);

// Of the formats fp8_e4m3 and fp8_e5m2. To a code: nearest, ties to even, saturating; NaN: a NaN.
float fp8_value(WeightFormat format, std::uint8_t code);
std::uint8_t fp8_code(WeightFormat format, float value);
float fp8_largest(WeightFormat format);

float from_half(std::uint16_t half);
std::uint16_t to_half(float value);  // nearest, ties to even

// `row` has row_bytes(format, inputs) bytes; `codes` keeps its memory between calls.
void take_apart(WeightFormat format, const std::byte* row, Index inputs, RowCodes& codes);
void put_together(WeightFormat format, const RowCodes& codes, Index inputs, std::byte* row);

// Whether each input of *_order has an entry of the row's table; always so in other formats.
bool entries_fit(WeightFormat format, const RowCodes& codes, Index inputs);
// Why a row makes no image; null: nothing speaks against it.
const char* fault_of(WeightFormat format, const RowCodes& codes, Index inputs);

// The values of 32-block b, with the roundings that weight_format.h states.
void values_of(WeightFormat format, const RowCodes& codes, Index block, float* values);

}  // namespace tutti::kernels
