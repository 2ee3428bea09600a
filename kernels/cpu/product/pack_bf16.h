// Operands of bf16 products on the machinery of fp32, and images: pairs of k as units of 32 bits,
// the even k in the lower half.
//
//   rows     left    [row][units]
//   columns  right   [panel][units][64], zeros where columns end: an image (product_call.h)
//
// Numbers are bf16, or fp32 that is rounded on the way as by to_bf16; behind the last k come zeros.
// Bits only: no unit is computed with as a float, though it is kept in memory for them.
//
// Ownership: the result is the workers' op scratch memory, or `x` itself where it is so already.
#pragma once

#include "kernels/cpu/product/bf16_row.h"
#include "kernels/cpu/product/product_call.h"
#include "kernels/ops/elementwise/bf16.h"

namespace tutti::kernels {

// The bf16 number in the upper half of 32 bits, to the nearest; below it are any. One width
// throughout, so that loops become vectors.
inline std::uint32_t upper_half(Bf16 x) { return std::uint32_t{x} << 16; }
inline std::uint32_t upper_half(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t size = bits & 0x7fffffffU;
  const std::uint32_t added = size < kInfinityBits ? 0x7fffU + (bits >> 16 & 1U) : 0U;
  return (bits + added) | (size > kInfinityBits ? 0x400000U : 0U);
}

// As fp32.
template <class Element>
float value_of(Element x) {
  return std::bit_cast<float>(upper_half(x) & 0xffff0000U);
}

// As a product's right operand that becomes fp32 on the way; `x` outlives the call.
WidenedRight widened_right(const BasicMatrix<const Bf16>& x);
WidenedRight widened_right(const ConstMatrix& x);

ConstMatrix pair_rows(const Workers& workers, const BasicMatrix<const Bf16>& x, DepthOrder order,
                      Index units);
ConstMatrix pair_rows(const Workers& workers, const ConstMatrix& x, DepthOrder order, Index units);

const float* pair_columns(const Workers& workers, const BasicMatrix<const Bf16>& x,
                          DepthOrder order, Index units);
const float* pair_columns(const Workers& workers, const ConstMatrix& x, DepthOrder order,
                          Index units);

}  // namespace tutti::kernels
