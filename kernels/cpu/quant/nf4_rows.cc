// AVX2. The table of sixteen numbers lies in four registers, one for each byte of
// an fp32 number: a byte shuffle looks thirty-two codes up at once, and interleaving the four
// results gives the numbers. Per eight weights that is some three shuffles, where a permutation of
// whole numbers takes two of two operations each, a blend and two shifts.
#include "kernels/cpu/quant/nf4_rows.h"

#include <immintrin.h>

#include <bit>

#include "kernels/ops/weights/image_layout.h"

namespace tutti::kernels {

namespace {

constexpr CellLayout kLayout = layout_of(WeightFormat::nf4);
// The machine looks fewer cells ahead than memory is far away.
constexpr Index kAheadBytes = 4096;

struct Table {
  alignas(32) std::uint8_t plane[4][32];
};
constexpr Table kTable = [] {
  Table table{};
  for (std::size_t code = 0; code < 16; ++code) {
    const auto bits = std::bit_cast<std::uint32_t>(kNormalFloats[code]);
    for (std::size_t byte = 0; byte < 4; ++byte) {
      const auto value = static_cast<std::uint8_t>(bits >> (8 * byte));
      table.plane[byte][code] = value;
      table.plane[byte][16 + code] = value;
    }
  }
  return table;
}();

__m256i load(const std::uint8_t* from) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}

// Four inputs of eight outputs, from bytes that hold the four codes of an output side by side.
struct Quad {
  __m256 input[4];
};
inline Quad look_up(__m256i codes) {
  const __m256i by_input =
      _mm256_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15,  //
                       0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  codes = _mm256_shuffle_epi8(codes, by_input);
  const __m256i b0 = _mm256_shuffle_epi8(load(kTable.plane[0]), codes);
  const __m256i b1 = _mm256_shuffle_epi8(load(kTable.plane[1]), codes);
  const __m256i b2 = _mm256_shuffle_epi8(load(kTable.plane[2]), codes);
  const __m256i b3 = _mm256_shuffle_epi8(load(kTable.plane[3]), codes);
  const __m256i low = _mm256_unpacklo_epi8(b0, b1);
  const __m256i high = _mm256_unpackhi_epi8(b0, b1);
  const __m256i upper_low = _mm256_unpacklo_epi8(b2, b3);
  const __m256i upper_high = _mm256_unpackhi_epi8(b2, b3);
  return {{_mm256_castsi256_ps(_mm256_unpacklo_epi16(low, upper_low)),
           _mm256_castsi256_ps(_mm256_unpackhi_epi16(low, upper_low)),
           _mm256_castsi256_ps(_mm256_unpacklo_epi16(high, upper_high)),
           _mm256_castsi256_ps(_mm256_unpackhi_epi16(high, upper_high))}};
}

// Of kGroups groups side by side: one row needs two of them to hide the latency of its chains.
template <int kRows, int kGroups>
void run_groups(const ConstMatrix& left, const std::uint8_t* groups, Index group_bytes,
                float* sums) {
  constexpr int kHalves = 2 * kGroups;  // of sixteen outputs
  const __m256i nibble = _mm256_set1_epi8(15);
  __m256 sum[kRows][kHalves];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int h = 0; h < kHalves; ++h) sum[r][h] = _mm256_loadu_ps(sums + r * kImagePanel + h * 8);
  }
  for (Index k = 0; k < left.columns; k += kCell) {
    const std::uint8_t* const cell = groups + kLayout.cell_at(k / kCell);
    for (int g = 0; g < kGroups; ++g) {
      for (Index line = 0; line < kLayout.cell(); line += 64) {
        __builtin_prefetch(cell + g * group_bytes + line + kAheadBytes);
      }
    }
    // The low nibbles are inputs 0 .. 15, the high ones 16 .. 31.
    for (Index quad = 0; quad < kQuads; ++quad) {
      const float* const x = left.data + k + quad * 4;
#pragma GCC unroll 8
      for (int h = 0; h < kHalves; ++h) {
        const std::uint8_t* const own = cell + h / 2 * group_bytes;
        const __m256i both = load(own + quad % 4 * 64 + h % 2 * 32);
        const Quad values =
            look_up(_mm256_and_si256(quad < 4 ? both : _mm256_srli_epi16(both, 4), nibble));
        const __m256 scale =
            _mm256_loadu_ps(reinterpret_cast<const float*>(own + kLayout.codes()) + h % 2 * 8);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
          const __m256 weight = _mm256_mul_ps(scale, values.input[i]);
#pragma GCC unroll 8
          for (int r = 0; r < kRows; ++r) {
            sum[r][h] =
                _mm256_fmadd_ps(_mm256_broadcast_ss(x + r * left.stride + i), weight, sum[r][h]);
          }
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

struct Narrow {
  template <int kRows>
  static constexpr int kTogether = kRows == 1 ? 2 : 1;
  template <int kRows, int kGroups>
  static void run(const ConstMatrix& left, const std::uint8_t* groups, Index group_bytes,
                  float* sums) {
    run_groups<kRows, kGroups>(left, groups, group_bytes, sums);
  }
};

}  // namespace

void run_nf4_rows(const ConstMatrix& left, const std::uint8_t* groups, Index group_bytes,
                  float* sums) {
  run_nf4_panel<Narrow>(left, groups, group_bytes, sums);
}

}  // namespace tutti::kernels
