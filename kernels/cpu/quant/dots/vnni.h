// The V of cell_dot.h with AVX512-VNNI: four unsigned codes by four int8 a lane and instruction.
//
// Included by sources that are compiled for that instruction set and called only where the machine
// has it.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace tutti::kernels {
namespace {

struct Vnni {
  using Codes = __m512i;
  using Ints = __m512i;
  using Floats = __m512;
  static constexpr int kChannelRows = 6;
  static constexpr int kChannelGroups = 4;
  // Four groups are four streams of memory, and 16 chains of products at four rows.
  static constexpr int kCellGroups = 4;
  static constexpr bool kScalesLast = true;
  static constexpr int kAsksInto = 2;
  static constexpr int kWideZero = 128;
  static constexpr int part_of(int bits) { return bits == 6 ? 4 : 8; }

  // Sums are values that are passed on, never objects: gcc keeps those in registers alone.
  template <bool kWide>
  using Sum = __m512i;
  template <bool kWide>
  static __m512i from(std::int32_t start) {
    return _mm512_set1_epi32(start);
  }
  template <bool kWide>
  static __m512i dot(__m512i sum, __m512i codes, const std::int8_t* x) {
    std::int32_t four;
    std::memcpy(&four, x, 4);
    return _mm512_dpbusd_epi32(sum, codes, _mm512_set1_epi32(four));
  }
  template <bool kWide>
  static __m512i total(__m512i sum) {
    return sum;
  }

  // Sums begin where the cell's zeros leave them.
  static constexpr bool kStartsInSum = true;
  // As floats, which hold the sums of a cell and their products by 63 exactly.
  using SubScale = __m512;
  static __m512 sub_scale(__m512i bytes) { return _mm512_cvtepi32_ps(bytes); }
  static __m512i sub_scaled(__m512i sum, __m512) { return sum; }
  static __m512 sub_scaled(__m512 sum, __m512 scale) { return _mm512_mul_ps(sum, scale); }

  static __m512i scaled(__m512i sum, __m512i scale) { return _mm512_mullo_epi32(sum, scale); }

  static __m512i load(const std::uint8_t* from) { return _mm512_loadu_si512(from); }
  static __m512i low(__m512i both) { return _mm512_and_si512(both, _mm512_set1_epi8(15)); }
  static __m512i high(__m512i both) {
    return _mm512_and_si512(_mm512_srli_epi16(both, 4), _mm512_set1_epi8(15));
  }
  // Bits moved left by kLeft, then those of kMask.
  template <int kLeft, int kMask>
  static __m512i field(__m512i bits) {
    const __m512i moved = kLeft >= 0 ? _mm512_slli_epi16(bits, kLeft >= 0 ? kLeft : 0)
                                     : _mm512_srli_epi16(bits, -kLeft);
    return _mm512_and_si512(moved, _mm512_set1_epi8(kMask));
  }
  static __m512i join(__m512i a, __m512i b) { return _mm512_or_si512(a, b); }
  static __m512i add(__m512i a, __m512i b) { return _mm512_add_epi32(a, b); }
  // Both values in a lane's two halves of sixteen bits.
  static __m512i pairs(__m512i low, __m512i high) {
    return _mm512_mask_blend_epi16(0xaaaaaaaa, low, _mm512_slli_epi32(high, 16));
  }
  static __m512i add_pairs(__m512i sum, __m512i pairs, const std::int16_t* two) {
    std::int32_t both;
    std::memcpy(&both, two, 4);
    return _mm512_dpwssd_epi32(sum, pairs, _mm512_set1_epi32(both));
  }
  static __m512i mul_int(__m512i a, __m512i b) { return _mm512_mullo_epi32(a, b); }
  static __m512i splat_int(std::int32_t value) { return _mm512_set1_epi32(value); }
  static __m512i bytes(const std::uint8_t* from) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static __m512i signed_bytes(const std::uint8_t* from) {
    return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static __m512 halves(const std::uint8_t* from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  static __m512 splat(float value) { return _mm512_set1_ps(value); }
  static __m512 to_floats(__m512i x) { return _mm512_cvtepi32_ps(x); }
  static __m512 mul(__m512 a, __m512 b) { return _mm512_mul_ps(a, b); }
  static __m512 fma(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
  static __m512 fnma(__m512 a, __m512 b, __m512 c) { return _mm512_fnmadd_ps(a, b, c); }
  static __m512 load_floats(const float* from) { return _mm512_loadu_ps(from); }
  static void store_floats(__m512 x, float* to) { _mm512_storeu_ps(to, x); }
};

}  // namespace
}  // namespace tutti::kernels
