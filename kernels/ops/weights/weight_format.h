// The formats of quantised weights, row by row: how many bytes, what value each code stands for.
//
//   format        a block        bits  value of code q      stored
//   bf16          an input       16    q                    bf16 q
//   int8_channel  a row          8     s q                  f32 s, int8 q
//   int4_group    32             5     s q + m              f16 s, f16 m, 4-bit q
//   nf4           64             4.5   a * table[q]         f32 a, 4-bit q
//   fp8_e4m3      128            8.3   s * e4m3(q)          f32 s, 8-bit q
//   fp8_e5m2      128            8.3   s * e5m2(q)          f32 s, 8-bit q
//   int4_zero     32             4.8   s (q - z)            f16 s, 8-bit z, 4-bit q
//   int8_zero     32             8.8   s (q - z)            f16 s, 8-bit z, 8-bit q
//   int4_order    32             20.8  s[e] (q - z[e])      f16 s, 8-bit z, 32 x 16-bit e, 4-bit q
//   int8_order    32             24.8  s[e] (q - z[e])      f16 s, 8-bit z, 32 x 16-bit e, 8-bit q
//   q8_0          32             8.5   d q                  f16 d, int8 q
//   q4_0          32             4.5   d (q - 8)            f16 d, 4-bit q
//   q5_0          32             5.5   d (q - 16)           f16 d, fifth bits, 4-bit q
//   q4_k          256 = 8 x 32   4.5   (d s) q - (e m)      f16 d, f16 e, 6-bit s, m, 4-bit q
//   q5_k          256 = 8 x 32   5.5   the same             the same, fifth bits
//   q6_k          256 = 16 x 16  6.6   (d s) (q - 32)       6-bit q, int8 s, f16 d
//
// From q8_0 on the blocks are byte for byte those of GGUF files; nf4 is the table of Dettmers et
// al. 2023 with absmax blocks of 64. Values are computed in f32 in the order written, each step
// rounded once and nothing fused.
//
// fp8 (Micikevicius et al. 2022): e4m3 has no infinity, its one NaN of each sign is 0x7f, 0xff, its
// largest number 448; e5m2 is the upper byte of a half, up to 57,344. The last block of a row may
// be shorter. A scale of a whole output, or of a square of outputs and inputs, is repeated in each
// block that it counts for. Quantising divides by s = max |w| / largest in f32, then rounds to the
// nearest code, ties to even; what is beyond the largest becomes the largest. NaN and infinite
// codes have those values when rows are dequantised, and no product (quantised_weight.h).
//
// *_zero and *_order hold what GPTQ and AWQ files do (Frantar et al. 2023, Lin et al. 2024): a
// scale and a zero of its own for each group of inputs. In *_order the inputs of a group lie
// anywhere, as activation order has them: a row's blocks hold a table of scales and zeros, and each
// input its entry e in it. A product of a half and a difference of bytes is exact in f32.
//
// Threads: any. Errors: invalid_argument (a row that is no whole number of blocks, a size that does
// not match, a weight that is not finite).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/tensor/matrix.h"
#include "protocol/base/result.h"

namespace tutti::kernels {

enum class WeightFormat : std::uint8_t {
  bf16,
  int8_channel,
  int4_group,
  nf4,
  q8_0,
  q4_0,
  q5_0,
  q4_k,
  q5_k,
  q6_k,
  fp8_e4m3,
  fp8_e5m2,
  int4_zero,
  int8_zero,
  int4_order,
  int8_order,
};

inline constexpr std::array kWeightFormats = {
    WeightFormat::bf16,       WeightFormat::int8_channel, WeightFormat::int4_group,
    WeightFormat::nf4,        WeightFormat::q8_0,         WeightFormat::q4_0,
    WeightFormat::q5_0,       WeightFormat::q4_k,         WeightFormat::q5_k,
    WeightFormat::q6_k,       WeightFormat::fp8_e4m3,     WeightFormat::fp8_e5m2,
    WeightFormat::int4_zero,  WeightFormat::int8_zero,    WeightFormat::int4_order,
    WeightFormat::int8_order,
};

std::string_view to_string(WeightFormat format);

constexpr bool is_fp8(WeightFormat format) {
  return format == WeightFormat::fp8_e4m3 || format == WeightFormat::fp8_e5m2;
}

// Codes whose zero is a number of their own, by group of inputs; groups whose inputs lie anywhere.
constexpr bool is_ordered(WeightFormat format) {
  return format == WeightFormat::int4_order || format == WeightFormat::int8_order;
}
constexpr bool has_zeros(WeightFormat format) {
  return format == WeightFormat::int4_zero || format == WeightFormat::int8_zero ||
         is_ordered(format);
}

// Whether a cell's values are a scale times an integer less one zero (or and a minimum): what our
// products of integers need.
constexpr bool has_integer_codes(WeightFormat format) {
  return format != WeightFormat::bf16 && format != WeightFormat::nf4 && !is_fp8(format) &&
         !has_zeros(format);
}

// Inputs of the blocks that a row is whole ones of (1 for bf16, int8_channel and fp8), and bytes of
// a row.
Index block_inputs(WeightFormat format);
std::size_t row_bytes(WeightFormat format, Index inputs);
// The inputs of a row of so many bytes; none has them: -1.
Index inputs_of(WeightFormat format, std::size_t bytes);

// Nearest codes for the block's scales. The scales follow from the block's extremes; no search for
// better ones.
Result<> quantise_row(WeightFormat format, std::span<const float> values, std::span<std::byte> row);
Result<> dequantise_row(WeightFormat format, std::span<const std::byte> row,
                        std::span<float> values);

// A row of codes as checkpoints hold them, for the formats with zeros. Scales and zeros are of each
// cell of 32 inputs; of *_order of each entry, at most as many. Errors: sizes that do not match, a
// scale that is no finite half, an entry that is not there.
struct GroupedRow {
  std::span<const std::uint8_t> codes;  // by input
  std::span<const float> scales;
  std::span<const std::uint8_t> zeros;
  std::span<const std::uint16_t> entries;  // by input; *_order alone
};
Result<> join_row(WeightFormat format, const GroupedRow& from, std::span<std::byte> row);
// Whether a finite half has this value.
bool is_half(float value);

}  // namespace tutti::kernels
