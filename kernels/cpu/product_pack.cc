#include "kernels/cpu/product_pack.h"

#include <immintrin.h>

#include <algorithm>
#include <cstring>

namespace tutti::kernels {

namespace {

// Turns an 8 x 8 block: to[k * to_stride + n] = from[n * from_stride + k].
inline void transpose_8x8(const float* from, Index from_stride, float* to, Index to_stride) {
  __m256 row[8];
  for (int i = 0; i < 8; ++i) row[i] = _mm256_loadu_ps(from + i * from_stride);
  __m256 pair[8];
  for (int i = 0; i < 4; ++i) {
    pair[2 * i] = _mm256_unpacklo_ps(row[2 * i], row[2 * i + 1]);
    pair[2 * i + 1] = _mm256_unpackhi_ps(row[2 * i], row[2 * i + 1]);
  }
  __m256 four[8];
  for (int i = 0; i < 2; ++i) {
    four[4 * i] = _mm256_shuffle_ps(pair[4 * i], pair[4 * i + 2], 0x44);
    four[4 * i + 1] = _mm256_shuffle_ps(pair[4 * i], pair[4 * i + 2], 0xee);
    four[4 * i + 2] = _mm256_shuffle_ps(pair[4 * i + 1], pair[4 * i + 3], 0x44);
    four[4 * i + 3] = _mm256_shuffle_ps(pair[4 * i + 1], pair[4 * i + 3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    _mm256_storeu_ps(to + i * to_stride, _mm256_permute2f128_ps(four[i], four[4 + i], 0x20));
    _mm256_storeu_ps(to + (i + 4) * to_stride, _mm256_permute2f128_ps(four[i], four[4 + i], 0x31));
  }
}

}  // namespace

void pack_panel_straight(ConstMatrix source, Index width, float* panel) {
  const auto bytes = static_cast<std::size_t>(source.columns) * sizeof(float);
  for (Index k = 0; k < source.rows; ++k) {
    float* const to = panel + k * width;
    std::memcpy(to, source.row(k), bytes);
    std::fill(to + source.columns, to + width, 0.0F);
  }
}

void transpose_into(ConstMatrix source, float* to, Index to_stride) {
  const Index depth = source.columns;
  Index n = 0;
  for (; n + 8 <= source.rows; n += 8) {
    Index k = 0;
    for (; k + 8 <= depth; k += 8) {
      transpose_8x8(source.row(n) + k, source.stride, to + k * to_stride + n, to_stride);
    }
    for (; k < depth; ++k) {
      for (Index i = n; i < n + 8; ++i) to[k * to_stride + i] = source.row(i)[k];
    }
  }
  for (; n < source.rows; ++n) {
    for (Index k = 0; k < depth; ++k) to[k * to_stride + n] = source.row(n)[k];
  }
}

void pack_panel_transposed(ConstMatrix source, Index width, float* panel) {
  transpose_into(source, panel, width);
  if (source.rows == width) return;
  for (Index k = 0; k < source.columns; ++k) {
    std::fill(panel + k * width + source.rows, panel + (k + 1) * width, 0.0F);
  }
}

void copy_rows(ConstMatrix source, float* to, Index stride) {
  const auto bytes = static_cast<std::size_t>(source.columns) * sizeof(float);
  for (Index r = 0; r < source.rows; ++r) std::memcpy(to + r * stride, source.row(r), bytes);
}

}  // namespace tutti::kernels
