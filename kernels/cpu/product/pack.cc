#include "kernels/cpu/product/pack.h"

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "kernels/cpu/product/transpose.h"

namespace tutti::kernels {

void pack_panel_straight(ConstMatrix source, Index width, float* panel) {
  if (source.columns == width && width % 16 == 0) {
    for (Index k = 0; k < source.rows; ++k) {
      const float* const from = source.row(k);
      float* const to = panel + k * width;
      for (Index c = 0; c < width; c += 16) {
        const __m256 a = _mm256_loadu_ps(from + c);
        const __m256 b = _mm256_loadu_ps(from + c + 8);
        _mm256_storeu_ps(to + c, a);
        _mm256_storeu_ps(to + c + 8, b);
      }
    }
    return;
  }
  const auto bytes = static_cast<std::size_t>(source.columns) * sizeof(float);
  for (Index k = 0; k < source.rows; ++k) {
    float* const to = panel + k * width;
    std::memcpy(to, source.row(k), bytes);
    std::fill(to + source.columns, to + width, 0.0F);
  }
}

namespace {

constexpr Index kLine = 16;
constexpr Index kAhead = 2 * kLine;
constexpr Index kRowsAhead = 8;

// Eight rows a few lines ahead, which lie too far apart for the machine to foresee: of this block,
// or of the rows behind it, which are packed next as a rule. A prefetch of what is not there is
// ignored. Always inline: gcc takes a function of nothing but prefetches for one without effects,
// and drops its calls.
__attribute__((always_inline)) inline void prefetch_lines(const ConstMatrix& source, Index n,
                                                          Index k) {
  Index ahead = k + kAhead;
  if (ahead >= source.columns) {
    ahead -= source.columns;
    n += source.rows;
  }
  const auto first = reinterpret_cast<std::uintptr_t>(source.data);
  for (Index i = n; i < n + 8; ++i) {
    const auto offset = static_cast<std::uintptr_t>(i * source.stride + ahead) * sizeof(float);
    _mm_prefetch(reinterpret_cast<const char*>(first + offset), _MM_HINT_T0);
  }
}

__attribute__((always_inline)) inline void prefetch_row(const ConstMatrix& source, Index row,
                                                        Index column) {
  const auto first = reinterpret_cast<std::uintptr_t>(source.data);
  const auto offset = static_cast<std::uintptr_t>(row * source.stride + column) * sizeof(float);
  _mm_prefetch(reinterpret_cast<const char*>(first + offset), _MM_HINT_T0);
}

}  // namespace

void transpose_into(ConstMatrix source, float* to, Index to_stride) {
  // A cache line of k at a time over all n, so that lines of both sides are finished while they are
  // in L1.
  const Index whole_n = source.rows / 8 * 8;
  for (Index first = 0; first < source.columns; first += kLine) {
    const Index end = std::min(first + kLine, source.columns);
    for (Index n = 0; n < whole_n; n += 8) {
      prefetch_lines(source, n, first);
      Index k = first;
      for (; k + 4 <= end; k += 4) {
        __m256 turned[4];
        turn_8x4(source.row(n) + k, source.stride, turned);
        float* const place = to + k * to_stride + n;
        _mm256_storeu_ps(place, turned[0]);
        _mm256_storeu_ps(place + to_stride, turned[1]);
        _mm256_storeu_ps(place + 2 * to_stride, turned[2]);
        _mm256_storeu_ps(place + 3 * to_stride, turned[3]);
      }
      for (; k < end; ++k) {
        for (Index i = n; i < n + 8; ++i) to[k * to_stride + i] = source.row(i)[k];
      }
    }
    for (Index n = whole_n; n < source.rows; ++n) {
      for (Index k = first; k < end; ++k) to[k * to_stride + n] = source.row(n)[k];
    }
  }
}

void pack_panel_transposed(ConstMatrix source, Index width, float* panel) {
  transpose_into(source, panel, width);
  if (source.rows == width) return;
  for (Index k = 0; k < source.columns; ++k) {
    std::fill(panel + k * width + source.rows, panel + (k + 1) * width, 0.0F);
  }
}

namespace {

// Sixteen outputs by sixteen k: a line of memory for each k.
void stream_square(const float* from, Index stride, float* to, Index to_stride) {
  alignas(64) float square[16][16];
  for (Index half = 0; half < 16; half += 8) {
    for (Index k = 0; k < 16; k += 4) {
      __m256 turned[4];
      turn_8x4(from + half * stride + k, stride, turned);
      for (int i = 0; i < 4; ++i) _mm256_store_ps(square[k + i] + half, turned[i]);
    }
  }
  for (Index k = 0; k < 16; ++k) {
    _mm256_stream_ps(to + k * to_stride, _mm256_load_ps(square[k]));
    _mm256_stream_ps(to + k * to_stride + 8, _mm256_load_ps(square[k] + 8));
  }
}

}  // namespace

void pack_image_panel(ConstMatrix source, Index width, float* panel) {
  const Index whole_rows = source.rows / 16 * 16;
  const Index whole_k = source.columns / 16 * 16;
  for (Index n = 0; n < whole_rows; n += 16) {
    for (Index k = 0; k < whole_k; k += 16) {
      stream_square(source.row(n) + k, source.stride, panel + k * width + n, width);
    }
    for (Index k = whole_k; k < source.columns; ++k) {
      for (Index i = n; i < n + 16; ++i) panel[k * width + i] = source.row(i)[k];
    }
  }
  for (Index k = 0; k < source.columns; ++k) {
    float* const to = panel + k * width;
    for (Index i = whole_rows; i < source.rows; ++i) to[i] = source.row(i)[k];
    std::fill(to + source.rows, to + width, 0.0F);
  }
  // What was written past the caches is seen by other threads from here on.
  _mm_sfence();
}

void copy_rows(ConstMatrix source, float* to, Index stride) {
  const Index whole = source.columns / 8 * 8;
  for (Index r = 0; r < source.rows; ++r) {
    const float* const from = source.row(r);
    float* const row = to + r * stride;
    // The rows lie too far apart for the machine to foresee; a prefetch behind the last is ignored.
    for (Index c = 0; c < whole; c += kLine) prefetch_row(source, r + kRowsAhead, c);
    for (Index c = 0; c < whole; c += 8) _mm256_storeu_ps(row + c, _mm256_loadu_ps(from + c));
    for (Index c = whole; c < source.columns; ++c) row[c] = from[c];
  }
}

void copy_tiles(ConstMatrix source, Index height, float* to) {
  constexpr Index kTogether = 16;
  const Index depth = source.rows;
  for (Index first = 0; first < depth; first += kTogether) {
    const Index end = std::min(first + kTogether, depth);
    for (Index k = first; k < end; ++k) {
      for (Index c = 0; c < source.columns; c += kLine) prefetch_row(source, k + kTogether, c);
    }
    for (Index c = 0; c < source.columns; c += height) {
      float* const tile = to + c * depth;
      if (height == 6 && c + height <= source.columns) {
        for (Index k = first; k < end; ++k) {
          const float* const from = source.row(k) + c;
          const __m128 four = _mm_loadu_ps(from);
          const __m128i two = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from + 4));
          _mm_storeu_ps(tile + k * 6, four);
          _mm_storel_epi64(reinterpret_cast<__m128i*>(tile + k * 6 + 4), two);
        }
      } else if (height == 9 && c + height <= source.columns) {
        for (Index k = first; k < end; ++k) {
          const float* const from = source.row(k) + c;
          float* const to_row = tile + k * 9;
          _mm256_storeu_ps(to_row, _mm256_loadu_ps(from));
          to_row[8] = from[8];
        }
      } else {
        const Index width = std::min(height, source.columns - c);
        for (Index k = first; k < end; ++k) {
          std::copy_n(source.row(k) + c, width, tile + k * height);
        }
      }
    }
  }
}

}  // namespace tutti::kernels
