// The register tile under the fp32 products: output[rows, columns] continued by fused multiply-adds
// over k.
//
// A tile holds kRows x kVectors vectors of the output in registers and walks over k in ascending
// order; each output is one chain (chain rule), whatever the tile's shape. It is wide and low, six
// rows of four vectors: an output row is then touched a quarter of a kilobyte at a time, and six
// rows of the left operand are few enough to be read where they lie, at any stride, without
// emptying a set of L1 (kernels/lab/products.md).
#if defined(TUTTI_CHAIN_TILE_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TUTTI_CHAIN_TILE_INL
#undef TUTTI_CHAIN_TILE_INL
#else
#define TUTTI_CHAIN_TILE_INL
#endif

#include <cstdint>

#include "kernels/cpu/lanes-inl.h"
#include "kernels/cpu/product/edge.h"
#include "kernels/cpu/product/product_call.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

// Accumulators: 24 of 32 registers on AVX-512, 12 of 16 on AVX2; the others hold the right vectors
// and a broadcast.
inline constexpr int kChainRows = 6;
#if HWY_TARGET == HWY_AVX3
inline constexpr int kChainVectors = 4;
#elif HWY_TARGET == HWY_AVX2
inline constexpr int kChainVectors = 2;
#else
inline constexpr int kChainVectors = 1;
#endif
inline constexpr Index kChainColumns = kChainVectors * kVectorLanes;
// On AVX-512 a tile of three vectors is as high as registers allow: a third of the right operand's
// bytes less for each multiply-add. Its rows are too many for a first cache of eight ways where
// they lie at even strides.
inline constexpr int kHighRows = 9;
inline constexpr int kHighVectors = 3;
template <int kVectors>
inline constexpr int kRowsAtOnce =
    HWY_TARGET == HWY_AVX3&& kVectors == kHighVectors ? kHighRows : kChainRows;

// Of k, that a tile asks for its right operand before it reads it.
inline constexpr Index kStepsAhead = 8;

// What a tile does beside its chains. One that asks, asks for one line at each step, one that
// streams for as many as it reads.
enum class Beside { nothing, packs, asks, streams };
template <Beside kBeside, int kVectors>
inline constexpr Index kLinesAsked = kBeside == Beside::asks      ? 1
                                     : kBeside == Beside::streams ? kVectors* kVectorLanes / 16
                                                                  : 0;

// The left operand of one tile: by_row, three rows share a pointer, as an address can hold one and
// two strides.
template <LeftOrder kOrder, int kRows>
struct LeftCursor {
  static constexpr int kPointers = kOrder == LeftOrder::by_row ? (kRows + 2) / 3 : 1;
  const float* at[kPointers];
  Index stride;

  HWY_INLINE LeftCursor(const float* left, Index stride_in) : stride(stride_in) {
    for (int p = 0; p < kPointers; ++p) at[p] = left + p * 3 * stride;
  }
  HWY_INLINE float operator[](int row) const {
    return kOrder == LeftOrder::by_row ? at[row / 3][(row % 3) * stride] : at[0][row];
  }
  HWY_INLINE void step() {
#pragma GCC unroll 4
    for (int p = 0; p < kPointers; ++p) at[p] += kOrder == LeftOrder::by_row ? 1 : stride;
  }
};

// Of addresses, not pointers: so far on there may be nothing.
HWY_INLINE std::uintptr_t ahead_of(const float* place, Index floats) {
  return reinterpret_cast<std::uintptr_t>(place) +
         static_cast<std::uintptr_t>(floats) * sizeof(float);
}
HWY_INLINE void ask_for(std::uintptr_t place) {
  __builtin_prefetch(reinterpret_cast<const void*>(place));
}

// The output is often not in cache: asked for beside the first steps, stored after the last one. A
// line beside each step: all of them at once would take every fill buffer of the first cache, and
// the panel would wait behind them.
template <int kRows, int kVectors, class Step>
HWY_INLINE void each_step(Index depth, const float* output, Index output_stride, const Step& step) {
  for (int c = 0; c < kVectors * kVectorLanes; c += 16) {
    const float* place = output + c;
    for (int r = 0; r < kRows && depth > 0; ++r, --depth) {
      __builtin_prefetch(place, 1);
      place += output_stride;
      step();
    }
  }
  for (; depth > 0; --depth) step();
}

template <LeftOrder kOrder, int kRows, int kVectors, Beside kBeside = Beside::nothing>
HWY_INLINE void run_chain_tile(const ChainCall& call) {
  LeftCursor<kOrder, kRows> left(call.left, call.left_stride);
  const float* HWY_RESTRICT right = call.right;
  [[maybe_unused]] float* HWY_RESTRICT packed = call.packed;
  [[maybe_unused]] std::uintptr_t ahead = 0;
  [[maybe_unused]] std::uintptr_t ahead_step = 0;
  if constexpr (kLinesAsked < kBeside, kVectors >> 0) {
    ahead = ahead_of(call.ahead->next, 0);
    ahead_step = static_cast<std::uintptr_t>(call.ahead->stride) * sizeof(float);
  }
  float* HWY_RESTRICT const output = call.output;
  const Index right_stride = call.right_stride;
  const Index output_stride = call.output_stride;
  Vector sum[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) {
      sum[r][c] = call.start == ChainStart::zero
                      ? hn::Zero(kTag)
                      : hn::LoadU(kTag, output + r * output_stride + c * kVectorLanes);
    }
  }
  const auto step = [&]() HWY_ATTR __attribute__((always_inline)) {
    Vector value[kVectors];
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) value[c] = hn::LoadU(kTag, right + c * kVectorLanes);
    if constexpr (kBeside == Beside::packs) {
      // Rows of the source lie pages apart, which the machine does not foresee: eight of them at
      // even strides have room in one set of the first cache.
#pragma GCC unroll 8
      for (int c = 0; c < kVectors; ++c) {
        if (c * kVectorLanes % 16 == 0)
          ask_for(ahead_of(right, 8 * right_stride + c * kVectorLanes));
        hn::StoreU(value[c], kTag, packed + c * kVectorLanes);
      }
      packed += kVectors * kVectorLanes;
    }
#pragma GCC unroll 4
    for (Index line = 0; line < kLinesAsked<kBeside, kVectors>; ++line) {
      __builtin_prefetch(reinterpret_cast<const void*>(ahead), 0, 2);
      ahead += ahead_step;
    }
    // Of a panel that passes through the first cache; the machine does not look as far ahead.
    if constexpr (HWY_TARGET == HWY_AVX3 && kBeside != Beside::packs && kRows >= kChainRows) {
#pragma GCC unroll 8
      for (int c = 0; c < kVectors; ++c) {
        ask_for(ahead_of(right, kStepsAhead * right_stride + c * kVectorLanes));
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const Vector factor = hn::Set(kTag, left[r]);
#pragma GCC unroll 8
      for (int c = 0; c < kVectors; ++c) sum[r][c] = hn::MulAdd(factor, value[c], sum[r][c]);
    }
    right += right_stride;
    left.step();
  };
  each_step<kRows, kVectors>(call.depth, output, output_stride, step);
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) {
      hn::StoreU(sum[r][c], kTag, output + r * output_stride + c * kVectorLanes);
    }
  }
}

// Whole vectors of columns, any number of rows, by tiles of the heights that exist.
template <LeftOrder kOrder, int kVectors>
HWY_NOINLINE void run_chain_rows(Index rows, ChainCall call) {
  constexpr int kRows = kRowsAtOnce<kVectors>;
  const Index row_step = kOrder == LeftOrder::by_row ? call.left_stride : 1;
  const Index tile_step = call.left_tile != 0 ? call.left_tile : kRows * row_step;
  const auto step = [&](int height) {
    rows -= height;
    call.left += height == kRows ? tile_step : height * row_step;
    call.output += height * call.output_stride;
  };
  if constexpr (kVectors == kChainVectors || kRows > kChainRows) {
    Ahead* const ahead = call.ahead;
    for (; ahead != nullptr && ahead->lines > 0 && rows >= kRows; step(kRows)) {
      run_chain_tile<kOrder, kRows, kVectors, Beside::asks>(call);
      ahead->next += 16;
      --ahead->lines;
    }
  }
  for (; rows >= kRows; step(kRows)) run_chain_tile<kOrder, kRows, kVectors>(call);
  if constexpr (kRows > kChainRows) {
    if (rows >= kChainRows) {
      run_chain_tile<kOrder, kChainRows, kVectors>(call);
      step(kChainRows);
    }
  }
  if (rows >= 4) {
    run_chain_tile<kOrder, 4, kVectors>(call);
    step(4);
  }
  if (rows >= 2) {
    run_chain_tile<kOrder, 2, kVectors>(call);
    step(2);
  }
  if (rows >= 1) run_chain_tile<kOrder, 1, kVectors>(call);
}

template <LeftOrder kOrder>
HWY_INLINE void run_chain_vectors(Index rows, int vectors, const ChainCall& call) {
  if (vectors >= kChainVectors) return run_chain_rows<kOrder, kChainVectors>(rows, call);
  if constexpr (kChainVectors == 4) {
    if (vectors == 3) return run_chain_rows<kOrder, 3>(rows, call);
    if (vectors == 2) return run_chain_rows<kOrder, 2>(rows, call);
  }
  run_chain_rows<kOrder, 1>(rows, call);
}

// A panel: `columns` <= kChainColumns outputs of any number of rows. Where they end within a
// vector, through a tile of memory of our own.
template <LeftOrder kOrder>
HWY_NOINLINE void run_chain_panel(Index rows, Index columns, const ChainCall& call) {
  const int vectors = static_cast<int>((columns + kVectorLanes - 1) / kVectorLanes);
  if (columns % kVectorLanes == 0) return run_chain_vectors<kOrder>(rows, vectors, call);
  const Index row_step = kOrder == LeftOrder::by_row ? call.left_stride : 1;
  run_through_tile<kChainRows, kChainColumns>(
      rows, columns, call, [&](Index first, Index height, ChainCall& part) HWY_ATTR {
        part.left += first * row_step;
        run_chain_vectors<kOrder>(height, vectors, part);
      });
}

// A whole panel that packs its right operand while the first tile reads it, so that packing costs
// stores beside the tile's multiply-adds.
template <LeftOrder kOrder>
HWY_NOINLINE void run_chain_packing(Index rows, ChainCall call) {
  if (rows <= kChainRows) return run_chain_vectors<kOrder>(rows, kChainVectors, call);
  run_chain_tile<kOrder, kChainRows, kChainVectors, Beside::packs>(call);
  const Index row_step = kOrder == LeftOrder::by_row ? call.left_stride : 1;
  call.left += kChainRows * row_step;
  call.output += kChainRows * call.output_stride;
  call.right = call.packed;
  call.right_stride = kChainColumns;
  run_chain_vectors<kOrder>(rows - kChainRows, kChainVectors, call);
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
