// fp32 numbers as IEEE 754 binary16 holds them: 11 bits from 2^-14 on, multiples of 2^-24 below.
#pragma once

#include <bit>
#include <cstdint>

namespace tutti::kernels {

// The value of the nearest, ties to even; infinity from 65,520 on; a NaN stays one.
constexpr float rounded_to_fp16(float x) {
  constexpr std::uint32_t kInfinity = 0x7f800000U;     // of fp32
  constexpr std::uint32_t kLeastNormal = 0x38800000U;  // 2^-14
  constexpr std::uint32_t kBeyond = 0x47800000U;       // 65,536: what rounds so is infinity
  constexpr std::uint32_t kCut = 0x1fffU;
  constexpr float kSmallUnit = 0.5F;  // numbers from here to 1 are multiples of 2^-24
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t sign = bits & 0x80000000U;
  const std::uint32_t magnitude = bits ^ sign;
  const float small = (std::bit_cast<float>(magnitude) + kSmallUnit) - kSmallUnit;
  const std::uint32_t large = (magnitude + kCut / 2 + (magnitude >> 13 & 1U)) & ~kCut;
  std::uint32_t rounded = magnitude < kLeastNormal ? std::bit_cast<std::uint32_t>(small) : large;
  rounded = large >= kBeyond ? kInfinity : rounded;
  rounded = magnitude > kInfinity ? magnitude : rounded;
  return std::bit_cast<float>(rounded | sign);
}

}  // namespace tutti::kernels
