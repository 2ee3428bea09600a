// fp32 numbers rounded to bf16 as to_bf16 does, and bf16 numbers widened, for other ops.
#pragma once

#include <bit>

#include "kernels/ops/elementwise/bf16.h"
#include "kernels/tensor/matrix.h"
#include "kernels/tensor/op_context.h"

namespace tutti::kernels {

inline constexpr std::uint32_t kInfinityBits = 0x7f800000U;

// What is added before the lower half is cut off decides the rounding; of infinities and NaN
// nothing is added, and a NaN whose upper half would be an infinity's gets its quiet bit.
inline Bf16 to_bf16_by(float value, std::uint32_t added) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t size = bits & 0x7fffffffU;
  const std::uint32_t quiet = size > kInfinityBits ? 0x40U : 0U;
  return static_cast<Bf16>((bits + (size >= kInfinityBits ? 0U : added)) >> 16 | quiet);
}

inline Bf16 to_nearest_bf16(float value) {
  return to_bf16_by(value, 0x7fffU + (std::bit_cast<std::uint32_t>(value) >> 16 & 1U));
}

inline float widened(Bf16 half) { return std::bit_cast<float>(std::uint32_t{half} << 16); }

void round_to_bf16(const float* from, Bf16* to, Index count);

// To the nearest that bf16 has, as fp32; `to` may be `from`.
void round_in_fp32(const float* from, float* to, Index count);

// The same of a matrix, into op scratch memory.
ConstMatrix rounded_in_fp32(const OpContext& ctx, const ConstMatrix& x);

}  // namespace tutti::kernels
