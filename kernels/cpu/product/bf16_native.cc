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

template <LeftOrder kOrder, int kRows, int kVectors>
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
  const Index row_step = kOrder == LeftOrder::by_row ? call.left_stride : 1;
  const float* const third = left + 3 * row_step;
  const float* second_rows = third;
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
    left += kOrder == LeftOrder::by_row ? 1 : call.left_stride;
    second_rows += kOrder == LeftOrder::by_row ? 1 : call.left_stride;
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) {
      _mm512_storeu_ps(call.output + r * call.output_stride + c * kLanes, sum[r][c]);
    }
  }
}

template <LeftOrder kOrder, int kVectors>
void run_rows(Index rows, ChainCall call) {
  const Index row_step = kOrder == LeftOrder::by_row ? call.left_stride : 1;
  const auto step = [&](int height) {
    rows -= height;
    call.left += height * row_step;
    call.output += height * call.output_stride;
  };
  for (; rows >= kRowsMax; step(kRowsMax)) run_tile<kOrder, kRowsMax, kVectors>(call);
  for (; rows >= 2; step(2)) run_tile<kOrder, 2, kVectors>(call);
  if (rows > 0) run_tile<kOrder, 1, kVectors>(call);
}

template <LeftOrder kOrder>
void run_vectors(Index rows, int vectors, const ChainCall& call) {
  switch (vectors) {
    case 1: return run_rows<kOrder, 1>(rows, call);
    case 2: return run_rows<kOrder, 2>(rows, call);
    case 3: return run_rows<kOrder, 3>(rows, call);
    default: return run_rows<kOrder, 4>(rows, call);
  }
}

template <LeftOrder kOrder>
void run_panel(Index rows, Index columns, const ChainCall& call) {
  const int vectors = static_cast<int>((columns + kLanes - 1) / kLanes);
  if (columns % kLanes == 0) return run_vectors<kOrder>(rows, vectors, call);
  const Index row_step = kOrder == LeftOrder::by_row ? call.left_stride : 1;
  run_through_tile<kRowsMax, kColumns>(rows, columns, call,
                                       [&](Index first, Index height, ChainCall& part) {
                                         part.left += first * row_step;
                                         run_vectors<kOrder>(height, vectors, part);
                                       });
}

}  // namespace

void run_bf16_panel(LeftOrder order, Index rows, Index columns, const ChainCall& call) {
  if (order == LeftOrder::by_row) {
    run_panel<LeftOrder::by_row>(rows, columns, call);
  } else {
    run_panel<LeftOrder::by_depth>(rows, columns, call);
  }
}

}  // namespace tutti::kernels
