// Value sums of rows that each see a part of a block: the tile with an end for each row.
#if defined(TUTTI_ATTENTION_TRIANGLE_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TUTTI_ATTENTION_TRIANGLE_INL
#undef TUTTI_ATTENTION_TRIANGLE_INL
#else
#define TUTTI_ATTENTION_TRIANGLE_INL
#endif

#include <span>

#include "kernels/cpu/attention/task.h"
#include "kernels/cpu/product/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

// kRows rows: the first sees call.depth keys, each further one key more. Outputs are continued.
template <class Left, int kRows>
HWY_INLINE void run_triangle(const TileCall& call) {
  constexpr int kVectors = kTileVectors;
  const float* left = call.left;
  const float* right = call.right;
  Vector sum[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) {
      sum[r][c] = hn::LoadU(kTag, call.output + r * call.output_stride + c * kVectorLanes);
    }
  }
  const auto add = [&](int row, const Vector(&value)[kVectors]) HWY_ATTR {
    const Vector factor = hn::Set(kTag, left[Left::at(row, 0)]);
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) sum[row][c] = hn::MulAdd(factor, value[c], sum[row][c]);
  };
  const auto load_values = [&](Vector(&value)[kVectors]) HWY_ATTR {
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) value[c] = hn::LoadU(kTag, right + c * kVectorLanes);
    right += call.right_stride;
  };
  Vector value[kVectors];
  for (Index k = call.depth; k > 0; --k) {
    load_values(value);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) add(r, value);
    left += Left::at(0, 1);
  }
#pragma GCC unroll 16
  for (int first = 1; first < kRows; ++first) {
    load_values(value);
#pragma GCC unroll 16
    for (int r = first; r < kRows; ++r) add(r, value);
    left += Left::at(0, 1);
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) {
      hn::StoreU(sum[r][c], kTag, call.output + r * call.output_stride + c * kVectorLanes);
    }
  }
}

#if HWY_TARGET == HWY_AVX3
inline constexpr Index kTriangleRows = 8;
#else
inline constexpr Index kTriangleRows = 4;
#endif

// The rows' spans, one after the other; `width` is a multiple of 32, and call is that of row 0 and
// key 0, outputs continued.
template <class Left>
HWY_NOINLINE void add_spans(std::span<const KeySpan> spans, Index width, const TileCall& call) {
  const auto count = static_cast<Index>(spans.size());
  const auto span_of = [&](Index row) { return spans[static_cast<std::size_t>(row)]; };
  for (Index row = 0; row < count;) {
    const KeySpan span = span_of(row);
    TileCall part = call;
    part.depth = span.end - span.first;
    part.left += Left::at(row, span.first);
    part.right += span.first * call.right_stride;
    part.output += row * call.output_stride;
    Index same = 1;
    while (row + same < count && span_of(row + same) == span) ++same;
    bool ascends = row + kTriangleRows <= count && same == 1;
    for (Index r = 1; ascends && r < kTriangleRows; ++r) {
      ascends = span_of(row + r) == KeySpan{span.first, span.end + r};
    }
    if (ascends) {
      for (Index column = 0; column < width; column += kTileColumns) {
        run_triangle<Left, kTriangleRows>(part);
        part.right += kTileColumns;
        part.output += kTileColumns;
      }
      row += kTriangleRows;
      continue;
    }
    if (part.depth > 0) run_band<Left>(same, width, part);
    row += same;
  }
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
