// Turns small blocks of fp32 numbers in AVX2 registers; data movement only.
#pragma once

#include <immintrin.h>

#include "kernels/tensor/matrix.h"

namespace tutti::kernels {

// turned[i][n] = from[n * stride + i] for eight n and four i. Rows n and n + 4 share a register, so
// that only shuffles within halves are needed.
inline void turn_8x4(const float* from, Index stride, __m256 (&turned)[4]) {
  const auto rows = [&](Index n) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from + n * stride)),
                                _mm_loadu_ps(from + (n + 4) * stride), 1);
  };
  const __m256 row0 = rows(0);
  const __m256 row1 = rows(1);
  const __m256 row2 = rows(2);
  const __m256 row3 = rows(3);
  const __m256 low01 = _mm256_unpacklo_ps(row0, row1);
  const __m256 low23 = _mm256_unpacklo_ps(row2, row3);
  const __m256 high01 = _mm256_unpackhi_ps(row0, row1);
  const __m256 high23 = _mm256_unpackhi_ps(row2, row3);
  turned[0] = _mm256_shuffle_ps(low01, low23, 0x44);
  turned[1] = _mm256_shuffle_ps(low01, low23, 0xee);
  turned[2] = _mm256_shuffle_ps(high01, high23, 0x44);
  turned[3] = _mm256_shuffle_ps(high01, high23, 0xee);
}

}  // namespace tutti::kernels
