// Integer products with AVX2: unsigned bytes by signed ones, summed in pairs of sixteen bits, which
// must not saturate.
#include <immintrin.h>

#include <cstring>

#include "kernels/cpu/quant/dots/group_dot.h"

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
  static constexpr int kChannelRows = 4;
  static constexpr int kChannelGroups = 1;
  static constexpr int kCellGroups = 1;
  static constexpr bool kScalesLast = false;
  static constexpr int kAsksInto = 3;

  // Pairs of codes below 64 are summed in sixteen bits for as long as they fit: 15, 31 or 63 times
  // 127, twice, for 8, 4 or 2 quads.
  static constexpr int part_of(int bits) { return bits == 5 ? 4 : bits == 6 ? 2 : 8; }
  // Wide codes are centred: their magnitude, at most 128, by x with their sign fits too.
  static constexpr int kWideZero = 0;

  // Narrow: pairs of sixteen bits; wide: lanes.
  template <bool kWide>
  using Sum = Two;
  // Of pairs, not of lanes: starts are added behind them.
  static constexpr bool kStartsInSum = false;
  template <bool kWide>
  static Two from(std::int32_t start) {
    return splat_int(start);
  }
  template <bool kWide>
  static Two dot(const Two& sum, const Two& codes, const std::int8_t* x) {
    std::int32_t four;
    std::memcpy(&four, x, 4);
    const __m256i bytes = _mm256_set1_epi32(four);
    if constexpr (kWide) {
      return {wide(sum.a, codes.a, bytes), wide(sum.b, codes.b, bytes)};
    } else {
      return {_mm256_add_epi16(sum.a, _mm256_maddubs_epi16(codes.a, bytes)),
              _mm256_add_epi16(sum.b, _mm256_maddubs_epi16(codes.b, bytes))};
    }
  }
  template <bool kWide>
  static Two total(const Two& sum) {
    if constexpr (kWide) {
      return sum;
    } else {
      const __m256i one = _mm256_set1_epi16(1);
      return {_mm256_madd_epi16(sum.a, one), _mm256_madd_epi16(sum.b, one)};
    }
  }
  // Joined to the widening, so that sums by q4_k and q5_k stay integers.
  using SubScale = Two;
  static Two sub_scale(const Two& bytes) { return bytes; }
  static Two sub_scaled(const Two& sum, const Two& scale) { return scaled(sum, scale); }
  static TwoFloats sub_scaled(const TwoFloats& sum, const Two&) { return sum; }
  static Two scaled(const Two& sum, const Two& scale) {
    const Two both = pairs(scale, scale);
    return {_mm256_madd_epi16(sum.a, both.a), _mm256_madd_epi16(sum.b, both.b)};
  }
  static __m256i wide(__m256i lane, __m256i codes, __m256i bytes) {
    const __m256i centred = _mm256_xor_si256(codes, _mm256_set1_epi8(-128));
    const __m256i pairs =
        _mm256_maddubs_epi16(_mm256_abs_epi8(centred), _mm256_sign_epi8(bytes, centred));
    return _mm256_add_epi32(lane, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  // Both values in a lane's two halves of sixteen bits.
  static Two pairs(const Two& low, const Two& high) {
    return {_mm256_blend_epi16(low.a, _mm256_slli_epi32(high.a, 16), 0xaa),
            _mm256_blend_epi16(low.b, _mm256_slli_epi32(high.b, 16), 0xaa)};
  }
  static Two add_pairs(const Two& sum, const Two& pairs, const std::int16_t* two) {
    std::int32_t both;
    std::memcpy(&both, two, 4);
    const __m256i x = _mm256_set1_epi32(both);
    return {_mm256_add_epi32(sum.a, _mm256_madd_epi16(pairs.a, x)),
            _mm256_add_epi32(sum.b, _mm256_madd_epi16(pairs.b, x))};
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
