// Integer products with AVX2. Codes below 64 by int8 fit the 16-bit pairs of maddubs; wider codes
// would saturate there and are widened to 16 bits first.
#include <immintrin.h>

#include <cstring>

#include "kernels/cpu/quant/group_dot.h"

namespace tutti::kernels {

namespace {

struct Two {
  __m256i a, b;
};
struct TwoFloats {
  __m256 a, b;
};

struct Avx2 {
  using Codes = Two;
  using Ints = Two;
  using Floats = TwoFloats;
  static constexpr int kChannelRows = 2;
  static constexpr int kChannelGroups = 1;

  // Lanes of eight outputs each; wide: pairs of inputs of four outputs each.
  struct Four {
    __m256i a, b, c, d;
  };
  template <bool kWide>
  using Sum = std::conditional_t<kWide, Four, Two>;
  template <bool kWide>
  static Sum<kWide> none() {
    const __m256i zero = _mm256_setzero_si256();
    if constexpr (kWide) {
      return {zero, zero, zero, zero};
    } else {
      return {zero, zero};
    }
  }
  template <bool kWide>
  static Sum<kWide> dot(const Sum<kWide>& sum, const Two& codes, const std::int8_t* x) {
    std::int32_t four;
    std::memcpy(&four, x, 4);
    if constexpr (kWide) {
      const __m256i words = _mm256_broadcastq_epi64(_mm_cvtepi8_epi16(_mm_cvtsi32_si128(four)));
      return {wide(sum.a, _mm256_castsi256_si128(codes.a), words),
              wide(sum.b, _mm256_extracti128_si256(codes.a, 1), words),
              wide(sum.c, _mm256_castsi256_si128(codes.b), words),
              wide(sum.d, _mm256_extracti128_si256(codes.b, 1), words)};
    } else {
      const __m256i bytes = _mm256_set1_epi32(four);
      return {narrow(sum.a, codes.a, bytes), narrow(sum.b, codes.b, bytes)};
    }
  }
  template <bool kWide>
  static Two total(const Sum<kWide>& sum) {
    if constexpr (kWide) {
      return {together(sum.a, sum.b), together(sum.c, sum.d)};
    } else {
      return sum;
    }
  }
  static __m256i wide(__m256i lane, __m128i codes, __m256i words) {
    return _mm256_add_epi32(lane, _mm256_madd_epi16(_mm256_cvtepu8_epi16(codes), words));
  }
  static __m256i narrow(__m256i lane, __m256i codes, __m256i bytes) {
    const __m256i pairs = _mm256_maddubs_epi16(codes, bytes);
    return _mm256_add_epi32(lane, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  static __m256i together(__m256i a, __m256i b) {
    return _mm256_permute4x64_epi64(_mm256_hadd_epi32(a, b), 0xd8);
  }

  static Two load(const std::uint8_t* from) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)),
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + 32))};
  }
  template <class Of>
  static Two each(const Two& x, const Of& of) {
    return {of(x.a), of(x.b)};
  }
  static Two low(const Two& both) {
    return each(both, [](__m256i x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); });
  }
  static Two high(const Two& both) {
    return each(both, [](__m256i x) {
      return _mm256_and_si256(_mm256_srli_epi16(x, 4), _mm256_set1_epi8(15));
    });
  }
  template <int kLeft, int kMask>
  static Two field(const Two& bits) {
    return each(bits, [](__m256i x) {
      const __m256i moved =
          kLeft >= 0 ? _mm256_slli_epi16(x, kLeft >= 0 ? kLeft : 0) : _mm256_srli_epi16(x, -kLeft);
      return _mm256_and_si256(moved, _mm256_set1_epi8(kMask));
    });
  }
  static Two join(const Two& x, const Two& y) {
    return {_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)};
  }
  static Two add(const Two& x, const Two& y) {
    return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)};
  }
  static Two mul_int(const Two& x, const Two& y) {
    return {_mm256_mullo_epi32(x.a, y.a), _mm256_mullo_epi32(x.b, y.b)};
  }
  static Two splat_int(std::int32_t value) {
    return {_mm256_set1_epi32(value), _mm256_set1_epi32(value)};
  }
  static Two bytes(const std::uint8_t* from) {
    const __m128i all = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return {_mm256_cvtepu8_epi32(all), _mm256_cvtepu8_epi32(_mm_srli_si128(all, 8))};
  }
  static Two signed_bytes(const std::uint8_t* from) {
    const __m128i all = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return {_mm256_cvtepi8_epi32(all), _mm256_cvtepi8_epi32(_mm_srli_si128(all, 8))};
  }
  static TwoFloats halves(const std::uint8_t* from) {
    const auto* const at = reinterpret_cast<const __m128i*>(from);
    return {_mm256_cvtph_ps(_mm_loadu_si128(at)), _mm256_cvtph_ps(_mm_loadu_si128(at + 1))};
  }
  static TwoFloats splat(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
  static TwoFloats to_floats(const Two& x) {
    return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)};
  }
  static TwoFloats mul(const TwoFloats& x, const TwoFloats& y) {
    return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)};
  }
  static TwoFloats fma(const TwoFloats& x, const TwoFloats& y, const TwoFloats& z) {
    return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
  }
  static TwoFloats fnma(const TwoFloats& x, const TwoFloats& y, const TwoFloats& z) {
    return {_mm256_fnmadd_ps(x.a, y.a, z.a), _mm256_fnmadd_ps(x.b, y.b, z.b)};
  }
  static TwoFloats load_floats(const float* from) {
    return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)};
  }
  static void store_floats(const TwoFloats& x, float* to) {
    _mm256_storeu_ps(to, x.a);
    _mm256_storeu_ps(to + 8, x.b);
  }
};

}  // namespace

GroupDot avx2_dot(WeightFormat format) { return dot_of<Avx2>(format); }

}  // namespace tutti::kernels
