// Sixteen random bits for each of many elements: the half-words of Philox draws, 16 draws at a
// time. Integers only, so vectors cannot change a bit.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/ops/random.h"

namespace tutti::kernels {

inline constexpr std::uint64_t kHalfWordsInDraw = 8;
inline constexpr std::uint64_t kDrawsAtOnce = 16;
inline constexpr std::uint64_t kHalfWordsAtOnce = kHalfWordsInDraw * kDrawsAtOnce;

// bits[i] of element first + i; `first` is a multiple of kHalfWordsInDraw.
void half_words(const RandomKey& key, std::uint64_t first,
                std::array<std::uint16_t, kHalfWordsAtOnce>& bits);

}  // namespace tutti::kernels
