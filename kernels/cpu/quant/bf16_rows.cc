// AVX2 on every machine: memory is the limit.
#include "kernels/cpu/quant/bf16_rows.h"

#include <immintrin.h>

#include <algorithm>

namespace tutti::kernels {

namespace {

constexpr Index kTileRowsMax = 6;
// How far ahead the panel is asked for: further than a stretch.
constexpr Index kAhead = 16384;

// kVectors x 8 outputs of kRows rows: 8 chains or more hide the latency of the multiply-add, and
// all sums stay in registers.
template <int kRows, int kVectors>
void run_tile(const ConstMatrix& left, const std::uint16_t* panel, float* sums) {
  __m256 sum[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) sum[r][v] = _mm256_loadu_ps(sums + r * kImagePanel + v * 8);
  }
  const float* x[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) x[r] = left.row(r);
  for (Index k = 0; k < left.columns; ++k) {
    __builtin_prefetch(panel + kAhead, 0, 2);
    if constexpr (kVectors == 8) __builtin_prefetch(panel + kAhead + 32, 0, 2);
    __m256 factor[kRows];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) factor[r] = _mm256_broadcast_ss(x[r] + k);
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i*>(panel + v * 8));
      const __m256 weight =
          _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(words), 16));
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) sum[r][v] = _mm256_fmadd_ps(factor[r], weight, sum[r][v]);
    }
    panel += kImagePanel;
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) _mm256_storeu_ps(sums + r * kImagePanel + v * 8, sum[r][v]);
  }
}

// All outputs of a panel, kVectors x 8 at a time.
template <int kRows, int kVectors>
void run_columns(const ConstMatrix& left, const std::uint16_t* panel, float* sums) {
  for (Index first = 0; first < kImagePanel; first += kVectors * 8) {
    run_tile<kRows, kVectors>(left, panel + first, sums + first);
  }
}

void run_block(const ConstMatrix& left, const std::uint16_t* panel, float* sums) {
  switch (left.rows) {
    case 1: return run_columns<1, 8>(left, panel, sums);
    case 2: return run_columns<2, 4>(left, panel, sums);
    case 3: return run_columns<3, 4>(left, panel, sums);
    case 4: return run_columns<4, 2>(left, panel, sums);
    case 5: return run_columns<5, 2>(left, panel, sums);
    default: return run_columns<6, 2>(left, panel, sums);
  }
}

}  // namespace

void run_bf16_rows(const ConstMatrix& left, const std::uint16_t* panel, float* sums) {
  if (left.rows == 1) return run_block(left, panel, sums);
  // Stretches of the panel that the first cache keeps; in one, equal blocks of rows.
  constexpr Index kDepth = 128;
  const Index blocks = (left.rows + kTileRowsMax - 1) / kTileRowsMax;
  for (Index k = 0; k < left.columns; k += kDepth) {
    const ConstMatrix part = left.column_range(k, std::min(kDepth, left.columns - k));
    for (Index b = 0; b < blocks; ++b) {
      const Index first = b * left.rows / blocks;
      const Index last = (b + 1) * left.rows / blocks;
      run_block(part.row_range(first, last - first), panel + k * kImagePanel,
                sums + first * kImagePanel);
    }
  }
}

}  // namespace tutti::kernels
