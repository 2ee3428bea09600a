// The formats of quantised weights, row by row: how many bytes, what value each code stands for.
//
//   format        a block        bits  value of code q      stored
//   bf16          an input       16    q                    bf16 q
//   int8_channel  a row          8     s q                  f32 s, int8 q
//   int4_group    32             5     s q + m              f16 s, f16 m, 4-bit q
//   nf4           64             4.5   a * table[q]         f32 a, 4-bit q
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
};

inline constexpr std::array kWeightFormats = {
    WeightFormat::bf16, WeightFormat::int8_channel, WeightFormat::int4_group, WeightFormat::nf4,
    WeightFormat::q8_0, WeightFormat::q4_0,         WeightFormat::q5_0,       WeightFormat::q4_k,
    WeightFormat::q5_k, WeightFormat::q6_k,
};

std::string_view to_string(WeightFormat format);

// Whether a value is a scale times an integer (and a minimum): what products of integers need.
constexpr bool has_integer_codes(WeightFormat format) {
  return format != WeightFormat::bf16 && format != WeightFormat::nf4;
}

// Inputs that a block covers (1 for bf16 and int8_channel), and bytes of a row.
Index block_inputs(WeightFormat format);
std::size_t row_bytes(WeightFormat format, Index inputs);

// Nearest codes for the block's scales. The scales follow from the block's extremes; no search for
// better ones.
Result<> quantise_row(WeightFormat format, std::span<const float> values, std::span<std::byte> row);
Result<> dequantise_row(WeightFormat format, std::span<const std::byte> row,
                        std::span<float> values);

}  // namespace tutti::kernels
