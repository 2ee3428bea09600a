// The register tile under attention's products: output[rows, columns] continued by fused
// multiply-adds over k.
//
// One tile holds kRows x (kTileVectors vectors) of the output in registers and walks over k in
// ascending order; each output is one chain (chain rule), whatever the tile's height. The left
// operand is read by broadcast, in one of two layouts with strides fixed at compile time; the right
// operand by vectors, kTileColumns next to each other.
#if defined(TUTTI_PRODUCT_TILE_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TUTTI_PRODUCT_TILE_INL
#undef TUTTI_PRODUCT_TILE_INL
#else
#define TUTTI_PRODUCT_TILE_INL
#endif

#include "kernels/cpu/lanes-inl.h"
#include "kernels/cpu/product/edge.h"
#include "kernels/ops/product.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

// 28 of 32 registers accumulate on AVX-512, 12 of 16 on AVX2; the rest hold a broadcast and the
// right vectors.
#if HWY_TARGET == HWY_AVX3
inline constexpr int kTileRows = 14;
#else
inline constexpr int kTileRows = 6;
#endif
inline constexpr int kTileVectors = 2;
inline constexpr Index kTileColumns = kTileVectors * kVectorLanes;

// Longest piece of k between two visits of the output: a left panel and a right panel of this depth
// share L1 and L2.
inline constexpr Index kDepth = 256;

// A left layout: k lies side by side; the stride is odd in cache lines, so that the rows of a tile
// fall into different sets of L1.
struct LeftRows {
  static constexpr Index kStride = kDepth + 16;
  static constexpr Index at(Index row, Index k) { return row * kStride + k; }
};

// Operands of a tile, a panel or a band: right is [depth][right_stride], readable up to a multiple
// of kTileColumns.
struct TileCall {
  Index depth = 0;
  const float* left = nullptr;
  const float* right = nullptr;
  Index right_stride = 0;
  float* output = nullptr;
  Index output_stride = 0;
  ChainStart start = ChainStart::zero;
};

template <class Left, int kRows, int kVectors = kTileVectors>
HWY_INLINE void run_tile(const TileCall& call) {
  const float* HWY_RESTRICT left = call.left;
  const float* HWY_RESTRICT right = call.right;
  float* HWY_RESTRICT const output = call.output;
  const Index right_stride = call.right_stride;
  const Index output_stride = call.output_stride;
  Vector sum[kRows][kVectors];
  // The output is often not in cache: prefetched here, stored after the walk over k.
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    __builtin_prefetch(output + r * output_stride, 1);
    if constexpr (kTileColumns > 16) __builtin_prefetch(output + r * output_stride + 16, 1);
  }
  if (call.start == ChainStart::zero) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int c = 0; c < kVectors; ++c) sum[r][c] = hn::Zero(kTag);
    }
  } else {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int c = 0; c < kVectors; ++c) {
        sum[r][c] = hn::LoadU(kTag, output + r * output_stride + c * kVectorLanes);
      }
    }
  }
  for (Index k = call.depth; k > 0; --k) {
    Vector value[kVectors];
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) value[c] = hn::LoadU(kTag, right + c * kVectorLanes);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const Vector factor = hn::Set(kTag, left[Left::at(r, 0)]);
#pragma GCC unroll 8
      for (int c = 0; c < kVectors; ++c) sum[r][c] = hn::MulAdd(factor, value[c], sum[r][c]);
    }
    right += right_stride;
    left += Left::at(0, 1);
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) {
      hn::StoreU(sum[r][c], kTag, output + r * output_stride + c * kVectorLanes);
    }
  }
}

// One panel of kTileColumns outputs, any number of rows, by tiles of the heights that exist.
template <class Left>
HWY_NOINLINE void run_panel(Index rows, TileCall call) {
  while (rows > 0) {
    const auto tile = [&](auto height) HWY_ATTR {
      constexpr int kRows = decltype(height)::value;
      run_tile<Left, kRows>(call);
      rows -= kRows;
      call.left += Left::at(kRows, 0);
      call.output += kRows * call.output_stride;
    };
    if (rows >= kTileRows) {
      tile(std::integral_constant<int, kTileRows>{});
#if HWY_TARGET == HWY_AVX3
    } else if (rows >= 8) {
      tile(std::integral_constant<int, 8>{});
#endif
    } else if (rows >= 4) {
      tile(std::integral_constant<int, 4>{});
    } else if (rows >= 2) {
      tile(std::integral_constant<int, 2>{});
    } else {
      tile(std::integral_constant<int, 1>{});
    }
  }
}

// The same where only `columns` < kTileColumns outputs exist: through a tile of memory of our own.
template <class Left>
HWY_NOINLINE void run_panel_edge(Index rows, Index columns, const TileCall& call) {
  run_through_tile<kTileRows, kTileColumns>(
      rows, columns, call, [&](Index first, Index height, TileCall& part) HWY_ATTR {
        part.left += Left::at(first, 0);
        run_panel<Left>(height, part);
      });
}

// All panels of `columns` outputs, the last one whole or not.
template <class Left>
HWY_INLINE void run_band(Index rows, Index columns, TileCall call) {
  for (; columns >= kTileColumns; columns -= kTileColumns) {
    run_panel<Left>(rows, call);
    call.right += kTileColumns;
    call.output += kTileColumns;
  }
  if (columns > 0) run_panel_edge<Left>(rows, columns, call);
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
