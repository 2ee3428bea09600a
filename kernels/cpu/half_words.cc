// AVX2 on every machine: integers only.
#include "kernels/cpu/half_words.h"

#include <immintrin.h>

namespace tutti::kernels {

namespace {

// A word of eight draws.
struct Words {
  __m256i c[4];
};

struct Products {
  __m256i high, low;
};

// 32 by 32 bits; the machine multiplies every second lane.
inline Products multiply(__m256i x, __m256i by) {
  const __m256i even = _mm256_mul_epu32(x, by);
  const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), by);
  return {_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa),
          _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa)};
}

inline __m256i splat(std::uint32_t word) { return _mm256_set1_epi32(static_cast<int>(word)); }

// The words of draws first .. first + 7 as a counter.
inline Words counters(const RandomKey& key, std::uint64_t first) {
  alignas(32) std::uint32_t low[8];
  alignas(32) std::uint32_t high[8];
  for (std::uint64_t i = 0; i < 8; ++i) {
    low[i] = static_cast<std::uint32_t>(first + i);
    high[i] = static_cast<std::uint32_t>((first + i) >> 32);
  }
  return {{_mm256_load_si256(reinterpret_cast<const __m256i*>(low)),
           _mm256_load_si256(reinterpret_cast<const __m256i*>(high)),
           splat(static_cast<std::uint32_t>(key.purpose)),
           splat(static_cast<std::uint32_t>(key.purpose >> 32))}};
}

inline void round_of(Words& w, __m256i k0, __m256i k1) {
  const Products a = multiply(w.c[0], splat(0xD2511F53U));
  const Products b = multiply(w.c[2], splat(0xCD9E8D57U));
  w = {{_mm256_xor_si256(_mm256_xor_si256(b.high, w.c[1]), k0), b.low,
        _mm256_xor_si256(_mm256_xor_si256(a.high, w.c[3]), k1), a.low}};
}

// Draw by draw, as they are counted.
inline void put(const Words& w, std::uint16_t* bits) {
  const __m256i low01 = _mm256_unpacklo_epi32(w.c[0], w.c[1]);
  const __m256i high01 = _mm256_unpackhi_epi32(w.c[0], w.c[1]);
  const __m256i low23 = _mm256_unpacklo_epi32(w.c[2], w.c[3]);
  const __m256i high23 = _mm256_unpackhi_epi32(w.c[2], w.c[3]);
  // Draws i and i + 4.
  const __m256i pair[4] = {_mm256_unpacklo_epi64(low01, low23), _mm256_unpackhi_epi64(low01, low23),
                           _mm256_unpacklo_epi64(high01, high23),
                           _mm256_unpackhi_epi64(high01, high23)};
  auto* const to = reinterpret_cast<__m128i*>(bits);
  for (int i = 0; i < 4; ++i) {
    _mm_storeu_si128(to + i, _mm256_castsi256_si128(pair[i]));
    _mm_storeu_si128(to + i + 4, _mm256_extracti128_si256(pair[i], 1));
  }
}

}  // namespace

// The rounds of random_words (random.cc).
void half_words(const RandomKey& key, std::uint64_t first,
                std::array<std::uint16_t, kHalfWordsAtOnce>& bits) {
  static_assert(kDrawsAtOnce == 16);
  const std::uint64_t draw = first / kHalfWordsInDraw;
  Words low = counters(key, draw);
  Words high = counters(key, draw + 8);
  auto k0 = static_cast<std::uint32_t>(key.seed);
  auto k1 = static_cast<std::uint32_t>(key.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    round_of(low, splat(k0), splat(k1));
    round_of(high, splat(k0), splat(k1));
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
  put(low, bits.data());
  put(high, bits.data() + 8 * kHalfWordsInDraw);
}

}  // namespace tutti::kernels
