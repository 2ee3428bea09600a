// AVX2 on every machine: memory is the limit of one row.
#include "kernels/cpu/quant/fp8_rows.h"

#include <immintrin.h>

#include <algorithm>

#include "kernels/cpu/product/product_call.h"
#include "kernels/cpu/quant/fp8_values.h"

namespace tutti::kernels {

namespace {

constexpr CellLayout kLayout = layout_of(WeightFormat::fp8_e4m3);
// The machine looks fewer cells ahead than memory is far away.
constexpr Index kAheadBytes = 4096;

// kGroups groups side by side: eight chains or more hide the latency of the multiply-add.
template <int kRows, int kGroups, bool kE4m3>
void run_groups(const ConstMatrix& left, const std::uint8_t* groups, Index group_bytes,
                float* sums) {
  __m256 sum[kRows][2 * kGroups];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int h = 0; h < 2 * kGroups; ++h) {
      sum[r][h] = _mm256_loadu_ps(sums + r * kImagePanel + h * 8);
    }
  }
  for (Index first = 0; first < left.columns; first += kCell) {
    const Index c = first / kCell;
    const std::uint8_t* const cell = groups + kLayout.cell_at(c);
    const std::uint8_t* const scales =
        groups + kLayout.super_at(c) + c % kSuperCells / kFp8Cells * 64;
    for (int g = 0; g < kGroups; ++g) {
      for (Index line = 0; line < kLayout.cell(); line += 64) {
        __builtin_prefetch(cell + g * group_bytes + line + kAheadBytes);
      }
    }
    const Index depth = std::min(kCell, left.columns - first);
    for (Index k = 0; k < depth; ++k) {
      const float* const x = left.data + first + k;
#pragma GCC unroll 4
      for (int g = 0; g < kGroups; ++g) {
        const auto* const scale = reinterpret_cast<const float*>(scales + g * group_bytes);
        const Fp8Values values = fp8_values(cell + g * group_bytes + k * kGroup, kE4m3);
        const __m256 low = _mm256_mul_ps(_mm256_loadu_ps(scale), values.low);
        const __m256 high = _mm256_mul_ps(_mm256_loadu_ps(scale + 8), values.high);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          const __m256 factor = _mm256_broadcast_ss(x + r * left.stride);
          sum[r][2 * g] = _mm256_fmadd_ps(factor, low, sum[r][2 * g]);
          sum[r][2 * g + 1] = _mm256_fmadd_ps(factor, high, sum[r][2 * g + 1]);
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int h = 0; h < 2 * kGroups; ++h) {
      _mm256_storeu_ps(sums + r * kImagePanel + h * 8, sum[r][h]);
    }
  }
}

template <int kRows, bool kE4m3>
void run_panel(const ConstMatrix& left, const std::uint8_t* groups, Index group_bytes,
               float* sums) {
  constexpr int kTogether = kRows == 1 ? 4 : (kRows <= 3 ? 2 : 1);
  for (Index g = 0; g < kGroupsTogether; g += kTogether) {
    run_groups<kRows, kTogether, kE4m3>(left, groups + g * group_bytes, group_bytes,
                                        sums + g * kGroup);
  }
}

template <bool kE4m3>
void run_rows(const ConstMatrix& left, const std::uint8_t* groups, Index group_bytes, float* sums) {
  switch (left.rows) {
    case 1: return run_panel<1, kE4m3>(left, groups, group_bytes, sums);
    case 2: return run_panel<2, kE4m3>(left, groups, group_bytes, sums);
    case 3: return run_panel<3, kE4m3>(left, groups, group_bytes, sums);
    default: return run_panel<kFp8RowsMax, kE4m3>(left, groups, group_bytes, sums);
  }
}

}  // namespace

void run_fp8_rows(WeightFormat format, const ConstMatrix& left, const std::uint8_t* groups,
                  Index group_bytes, float* sums) {
  (format == WeightFormat::fp8_e4m3 ? run_rows<true> : run_rows<false>)(left, groups, group_bytes,
                                                                        sums);
}

}  // namespace tutti::kernels
