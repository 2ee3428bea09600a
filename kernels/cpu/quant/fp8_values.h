// Sixteen codes of fp8 as numbers, in AVX2 and F16C. A code's bits are those of a half (of e4m3: of
// its 256th part, which the image's scale makes good), numbers below the normal ones too.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace tutti::kernels {

struct Fp8Values {
  __m256 low, high;
};

inline Fp8Values fp8_values(const std::uint8_t* codes, bool e4m3) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes));
  __m128i low = _mm_unpacklo_epi8(_mm_setzero_si128(), bytes);
  __m128i high = _mm_unpackhi_epi8(_mm_setzero_si128(), bytes);
  if (e4m3) {
    // One bit to the right, of which the sign leaves a copy.
    const __m128i without_copy = _mm_set1_epi16(static_cast<short>(0xbfff));
    low = _mm_and_si128(_mm_srai_epi16(low, 1), without_copy);
    high = _mm_and_si128(_mm_srai_epi16(high, 1), without_copy);
  }
  return {_mm256_cvtph_ps(low), _mm256_cvtph_ps(high)};
}

}  // namespace tutti::kernels
