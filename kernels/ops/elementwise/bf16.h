// Between fp32 and bf16, the upper half of an fp32 number.
//
//   to_bf16             to the nearest, ties to even; a NaN stays one
//   to_bf16_stochastic  up with the probability of what is cut off: the expectation is the number
//                       itself. Element i of the range uses 16 bits of (key, first_index + i):
//                       half-word index mod 8 of Philox draw index / 8 (random.h). Infinities and
//                       NaN as by to_bf16; a number beyond the largest bf16 may become infinity.
//   from_bf16           exact
//
// Errors: invalid_argument (lengths that differ); nothing is written then.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/ops/random.h"

namespace tutti::kernels {

using Bf16 = std::uint16_t;

// The arguments, as a device takes them.
struct ToBf16 {
  std::span<const float> from;
  std::span<Bf16> to;
};
struct FromBf16 {
  std::span<const Bf16> from;
  std::span<float> to;
};

Result<> to_bf16(const OpContext& ctx, std::span<const float> from, std::span<Bf16> to);
Result<> from_bf16(const OpContext& ctx, std::span<const Bf16> from, std::span<float> to);

struct StochasticBf16 {
  RandomKey key;
  std::uint64_t first_index = 0;
  std::span<const float> from;
  std::span<Bf16> to;
};
Result<> to_bf16_stochastic(const OpContext& ctx, const StochasticBf16& args);

}  // namespace tutti::kernels
