// AVX2 on every machine. A weight is a shift, a mask, a subtraction, a conversion and a product;
// with groups of inputs that lie anywhere its scale and zero are looked up for each input.
#include "kernels/cpu/quant/zero_rows.h"

#include <immintrin.h>

#include <cstring>

#include "kernels/cpu/product/product_call.h"

namespace tutti::kernels {

namespace {

// The machine looks fewer cells ahead than memory is far away.
constexpr Index kAheadBytes = 4096;

// Scales and zeros of kHalves x 8 outputs.
template <int kHalves>
struct Terms {
  alignas(32) float scale[kHalves][8];
  alignas(32) std::int32_t zero[kHalves][8];

  // Of the record of scales of the first group.
  void read(const std::uint8_t* record, Index group_bytes) {
#pragma GCC unroll 8
    for (int h = 0; h < kHalves; ++h) {
      const std::uint8_t* const own = record + h / 2 * group_bytes;
      _mm256_store_ps(
          scale[h],
          _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(own + h % 2 * 16))));
      _mm256_store_si256(reinterpret_cast<__m256i*>(zero[h]),
                         _mm256_cvtepu8_epi32(_mm_loadl_epi64(
                             reinterpret_cast<const __m128i*>(own + kZerosAt + h % 2 * 8))));
    }
  }
};

// kGroups groups side by side: eight chains or more hide the latency of the multiply-add.
template <WeightFormat kFormat, int kRows, int kGroups>
void run_groups(const ConstMatrix& left, const std::uint8_t* groups, Index group_bytes,
                float* sums) {
  constexpr CellLayout kLayout = layout_of(kFormat);
  constexpr int kHalves = 2 * kGroups;
  const __m256i mask = _mm256_set1_epi32((1 << kLayout.bits) - 1);
  __m256 sum[kRows][kHalves];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int h = 0; h < kHalves; ++h) sum[r][h] = _mm256_loadu_ps(sums + r * kImagePanel + h * 8);
  }
  Terms<kHalves> terms;
  for (Index first = 0; first < left.columns; first += kCell) {
    const std::uint8_t* const cell = groups + kLayout.cell_at(first / kCell);
    const std::uint8_t* const record = cell + kLayout.codes();
    for (int g = 0; g < kGroups; ++g) {
      for (Index line = 0; line < kLayout.cell(); line += 64) {
        __builtin_prefetch(cell + g * group_bytes + line + kAheadBytes);
      }
    }
    if constexpr (!is_ordered(kFormat)) terms.read(record, group_bytes);
    for (Index k = 0; k < kCell; ++k) {
      if constexpr (is_ordered(kFormat)) {
        std::uint16_t entry;
        std::memcpy(&entry, record + kEntriesAt + 2 * k, 2);
        terms.read(groups + kLayout.cell_at(entry) + kLayout.codes(), group_bytes);
      }
      const Index quad = k / 4;
      const Index at = (kLayout.bits == 4 ? quad % 4 : quad) * 64;
      const __m128i shift = _mm_cvtsi64_si128(k % 4 * 8 + (kLayout.bits == 4 ? quad / 4 * 4 : 0));
      const float* const x = left.data + first + k;
#pragma GCC unroll 8
      for (int h = 0; h < kHalves; ++h) {
        const __m256i words = _mm256_loadu_si256(
            reinterpret_cast<const __m256i*>(cell + h / 2 * group_bytes + at + h % 2 * 32));
        const __m256i code = _mm256_and_si256(_mm256_srl_epi32(words, shift), mask);
        const __m256i zero = _mm256_load_si256(reinterpret_cast<const __m256i*>(terms.zero[h]));
        const __m256 weight = _mm256_mul_ps(_mm256_load_ps(terms.scale[h]),
                                            _mm256_cvtepi32_ps(_mm256_sub_epi32(code, zero)));
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          sum[r][h] = _mm256_fmadd_ps(_mm256_broadcast_ss(x + r * left.stride), weight, sum[r][h]);
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int h = 0; h < kHalves; ++h) _mm256_storeu_ps(sums + r * kImagePanel + h * 8, sum[r][h]);
  }
}

template <WeightFormat kFormat, int kRows>
void run_panel(const ConstMatrix& left, const std::uint8_t* groups, Index group_bytes,
               float* sums) {
  constexpr int kTogether = kRows == 1 ? 4 : (kRows <= 3 ? 2 : 1);
  for (Index g = 0; g < kGroupsTogether; g += kTogether) {
    run_groups<kFormat, kRows, kTogether>(left, groups + g * group_bytes, group_bytes,
                                          sums + g * kGroup);
  }
}

template <WeightFormat kFormat>
void run_rows(const ConstMatrix& left, const std::uint8_t* groups, Index group_bytes, float* sums) {
  switch (left.rows) {
    case 1: return run_panel<kFormat, 1>(left, groups, group_bytes, sums);
    case 2: return run_panel<kFormat, 2>(left, groups, group_bytes, sums);
    case 3: return run_panel<kFormat, 3>(left, groups, group_bytes, sums);
    default: return run_panel<kFormat, kZeroRowsMax>(left, groups, group_bytes, sums);
  }
}

}  // namespace

void run_zero_rows(WeightFormat format, const ConstMatrix& left, const std::uint8_t* groups,
                   Index group_bytes, float* sums) {
  switch (format) {
    case WeightFormat::int4_zero:
      return run_rows<WeightFormat::int4_zero>(left, groups, group_bytes, sums);
    case WeightFormat::int8_zero:
      return run_rows<WeightFormat::int8_zero>(left, groups, group_bytes, sums);
    case WeightFormat::int4_order:
      return run_rows<WeightFormat::int4_order>(left, groups, group_bytes, sums);
    case WeightFormat::int8_order:
      return run_rows<WeightFormat::int8_order>(left, groups, group_bytes, sums);
    default: TUTTI_ASSERT(false);
  }
}

}  // namespace tutti::kernels
