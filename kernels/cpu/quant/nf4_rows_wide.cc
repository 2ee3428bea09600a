// nf4 with AVX-512: a permutation of sixteen numbers is the table, so eight weights cost a shuffle
// less than half as often as with bytes (nf4_rows.cc).
//
// Compiled for that instruction set and called only where the machine has it.
#include <immintrin.h>

#include "kernels/cpu/quant/nf4_rows.h"
#include "kernels/ops/weights/image_layout.h"

namespace tutti::kernels {

namespace {

constexpr CellLayout kLayout = layout_of(WeightFormat::nf4);
constexpr Index kAheadBytes = 4096;

// kGroups groups of sixteen outputs by kRows rows: eight chains or more hide the latency of the
// multiply-add.
template <int kRows, int kGroups>
void run_groups(const ConstMatrix& left, const std::uint8_t* groups, Index group_bytes,
                float* sums) {
  const __m512 table = _mm512_loadu_ps(kNormalFloats.data());
  __m512 sum[kRows][kGroups];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; ++g) {
      sum[r][g] = _mm512_loadu_ps(sums + r * kImagePanel + g * kGroup);
    }
  }
  for (Index k = 0; k < left.columns; k += kCell) {
    const std::uint8_t* const cell = groups + kLayout.cell_at(k / kCell);
    // Behind a group's last cells come those of the panel that is next.
    const bool next = k + kAheadBytes / kLayout.cell() * kCell >= left.columns;
    const Index ahead = kAheadBytes + (next ? (kGroups - 1) * group_bytes : 0);
    __m512 scale[kGroups];
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; ++g) {
      scale[g] = _mm512_loadu_ps(cell + g * group_bytes + kLayout.codes());
    }
    // The low nibbles are inputs 0 .. 15, the high ones 16 .. 31; a permutation reads the lowest
    // four bits of each lane alone.
#pragma GCC unroll 8
    for (int quad = 0; quad < kQuads; ++quad) {
      const float* const x = left.data + k + quad * 4;
      __m512i codes[kGroups];
#pragma GCC unroll 4
      for (int g = 0; g < kGroups; ++g) {
        const std::uint8_t* const own = cell + g * group_bytes;
        codes[g] = _mm512_loadu_si512(own + quad % 4 * 64);
        // A line of each group at a time: of many at once, prefetches are dropped (cell_dot.h).
        if (quad * 64 < kLayout.cell()) __builtin_prefetch(own + quad * 64 + ahead);
      }
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        __m512 weight[kGroups];
#pragma GCC unroll 4
        for (int g = 0; g < kGroups; ++g) {
          const __m512i code = _mm512_srli_epi32(codes[g], 8 * i + quad / 4 * 4);
          weight[g] = _mm512_mul_ps(scale[g], _mm512_permutexvar_ps(code, table));
        }
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          const __m512 factor = _mm512_set1_ps(x[r * left.stride + i]);
#pragma GCC unroll 4
          for (int g = 0; g < kGroups; ++g) {
            sum[r][g] = _mm512_fmadd_ps(factor, weight[g], sum[r][g]);
          }
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; ++g) {
      _mm512_storeu_ps(sums + r * kImagePanel + g * kGroup, sum[r][g]);
    }
  }
}

struct Wide {
  template <int kRows>
  static constexpr int kTogether = kRows <= 2 ? 4 : 2;
  template <int kRows, int kGroups>
  static void run(const ConstMatrix& left, const std::uint8_t* groups, Index group_bytes,
                  float* sums) {
    run_groups<kRows, kGroups>(left, groups, group_bytes, sums);
  }
};

}  // namespace

void run_nf4_rows_wide(const ConstMatrix& left, const std::uint8_t* groups, Index group_bytes,
                       float* sums) {
  run_nf4_panel<Wide>(left, groups, group_bytes, sums);
}

}  // namespace tutti::kernels
