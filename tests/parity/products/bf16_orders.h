// The orders in which products of bf16 numbers sum (product_bf16.h), factor by factor, on any
// machine: what the instructions of one that has them must give, bit for bit.
#pragma once

#include "kernels/ops/product_bf16.h"
#include "tests/parity/harness.h"

namespace tutti::kernels::parity {

inline constexpr Bf16Arithmetic kArithmetics[] = {Bf16Arithmetic::widened, Bf16Arithmetic::native,
                                                  Bf16Arithmetic::tiles};

inline float wide(Bf16 half) { return std::bit_cast<float>(std::uint32_t{half} << 16); }

// As the instructions see a number: below the normal ones it is zero.
inline float flushed(float value) {
  return std::abs(value) < 0x1p-126F ? std::copysign(0.0F, value) : value;
}

inline float multiplied_flushed(float x, float w, float sum) {
  return flushed(std::fma(flushed(x), flushed(w), flushed(sum)));
}

// One output that goes on from `sum`; left(k) and right(k) give its factors, k < depth, as fp32.
template <class Left, class Right>
float pairs_sum(float sum, Index depth, const Left& left, const Right& right) {
  const auto add = [&](Index k) {
    sum = multiplied_flushed(k < depth ? left(k) : 0.0F, k < depth ? right(k) : 0.0F, sum);
  };
  for (Index k = 0; k < depth; k += 2) {
    add(k + 1);
    add(k);
  }
  return sum;
}

template <class Left, class Right>
float groups_sum(float sum, Index depth, const Left& left, const Right& right) {
  constexpr Index kGroup = 32;
  const auto add = [&](float& to, Index k) {
    to = multiplied_flushed(k < depth ? left(k) : 0.0F, k < depth ? right(k) : 0.0F, to);
  };
  for (Index first = 0; first < depth; first += kGroup) {
    float even = 0.0F;
    float odd = 0.0F;
    for (Index k = first; k < first + kGroup; k += 2) {
      add(even, k);
      add(odd, k + 1);
    }
    sum = flushed(flushed(sum) + flushed(even + odd));
  }
  return sum;
}

template <class Left, class Right>
float bf16_sum(Bf16Arithmetic arithmetic, float sum, Index depth, const Left& left,
               const Right& right) {
  switch (arithmetic) {
    case Bf16Arithmetic::widened: return reference::chain(sum, depth, left, right);
    case Bf16Arithmetic::native: return pairs_sum(sum, depth, left, right);
    case Bf16Arithmetic::tiles: return groups_sum(sum, depth, left, right);
  }
  return sum;
}

}  // namespace tutti::kernels::parity
