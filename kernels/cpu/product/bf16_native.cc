#include "kernels/cpu/product/bf16_panels.h"

// The register tile of bf16 products with AVX512-BF16: operands are units of 32 bits, two bf16
// each. Compiled for that instruction set and called only where the machine has it; the shape and
// the walk are those of chain_tile-inl.h.
#include <immintrin.h>

#include <cstring>

#include "kernels/cpu/product/edge.h"

namespace tutti::kernels {

namespace {

constexpr int kRowsMax = 6;
constexpr int kVectorsMax = 4;
constexpr Index kLanes = 16;
constexpr Index kColumns = kVectorsMax * kLanes;

template <int kRows, int kVectors>
inline void run_tile(const ChainCall& call) {
  const float* left = call.left;
  const float* right = call.right;
  __m512 sum[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) {
      const float* const place = call.output + r * call.output_stride + c * kLanes;
      _mm_prefetch(reinterpret_cast<const char*>(place), _MM_HINT_T0);
      sum[r][c] = call.start == ChainStart::zero ? _mm512_setzero_ps() : _mm512_loadu_ps(place);
    }
  }
  // Three rows share a pointer, as an address can hold one and two strides.
  const Index row_step = call.left_stride;
  const float* second_rows = kRows > 3 ? left + 3 * row_step : left;
  for (Index k = call.depth; k > 0; --k) {
    __m512i value[kVectors];
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) value[c] = _mm512_loadu_si512(right + c * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const float* const at = r < 3 ? left + r * row_step : second_rows + (r - 3) * row_step;
      std::int32_t pair;
      std::memcpy(&pair, at, 4);
      const auto factor = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
#pragma GCC unroll 8
      for (int c = 0; c < kVectors; ++c) {
        sum[r][c] = _mm512_dpbf16_ps(sum[r][c], factor, reinterpret_cast<__m512bh>(value[c]));
      }
    }
    right += call.right_stride;
    ++left;
    ++second_rows;
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) {
      _mm512_storeu_ps(call.output + r * call.output_stride + c * kLanes, sum[r][c]);
    }
  }
}

template <int kVectors>
void run_rows(Index rows, ChainCall call) {
  const auto step = [&](int height) {
    rows -= height;
    call.left += height * call.left_stride;
    call.output += height * call.output_stride;
  };
  for (; rows >= kRowsMax; step(kRowsMax)) run_tile<kRowsMax, kVectors>(call);
  for (; rows >= 2; step(2)) run_tile<2, kVectors>(call);
  if (rows > 0) run_tile<1, kVectors>(call);
}

void run_vectors(Index rows, int vectors, const ChainCall& call) {
  switch (vectors) {
    case 1: return run_rows<1>(rows, call);
    case 2: return run_rows<2>(rows, call);
    case 3: return run_rows<3>(rows, call);
    default: return run_rows<4>(rows, call);
  }
}

}  // namespace

void run_bf16_panel(Index rows, Index columns, const ChainCall& call) {
  const int vectors = static_cast<int>((columns + kLanes - 1) / kLanes);
  if (columns % kLanes == 0) return run_vectors(rows, vectors, call);
  run_through_tile<kRowsMax, kColumns>(rows, columns, call,
                                       [&](Index first, Index height, ChainCall& part) {
                                         part.left += first * call.left_stride;
                                         run_vectors(height, vectors, part);
                                       });
}

}  // namespace tutti::kernels
