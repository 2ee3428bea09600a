// Sums of rows that each see a part of a block: the tile with a begin and an end for each row.
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

// Whether what a row sees begins, or ends, where it does for the row before, or one key later.
enum class Border { level, ascends };

// kRows rows: all see call.depth keys; before these the first sees the most where kFirst ascends,
// behind them the last where kEnd does. Outputs are continued.
template <class Left, int kRows, Border kFirst, Border kEnd>
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
  if constexpr (kFirst == Border::ascends) {
#pragma GCC unroll 16
    for (int last = 0; last < kRows - 1; ++last) {
      load_values(value);
#pragma GCC unroll 16
      for (int r = 0; r <= last; ++r) add(r, value);
      left += Left::at(0, 1);
    }
  }
  for (Index k = call.depth; k > 0; --k) {
    load_values(value);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) add(r, value);
    left += Left::at(0, 1);
  }
  if constexpr (kEnd == Border::ascends) {
#pragma GCC unroll 16
    for (int first = 1; first < kRows; ++first) {
      load_values(value);
#pragma GCC unroll 16
      for (int r = first; r < kRows; ++r) add(r, value);
      left += Left::at(0, 1);
    }
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

template <class Left, Border kFirst, Border kEnd>
HWY_INLINE void run_triangles(Index width, TileCall call) {
  for (; width >= kTileColumns; width -= kTileColumns) {
    run_triangle<Left, kTriangleRows, kFirst, kEnd>(call);
    call.right += kTileColumns;
    call.output += kTileColumns;
  }
  if (width == 0) return;
  run_through_tile<kTriangleRows, kTileColumns>(
      kTriangleRows, width, call, [](Index, Index, const TileCall& part) HWY_ATTR {
        run_triangle<Left, kTriangleRows, kFirst, kEnd>(part);
      });
}

// Whether the kTriangleRows rows make a triangle; then adds it. `part` is that of the first row and
// its first key.
template <class Left>
HWY_INLINE bool add_triangle(std::span<const KeySpan> rows, Index width, TileCall part) {
  const auto is = [&](Index by_first, Index by_end) {
    for (std::size_t r = 1; r < rows.size(); ++r) {
      const auto by = static_cast<Index>(r);
      const KeySpan wanted = {rows[0].first + by * by_first, rows[0].end + by * by_end};
      if (rows[r] != wanted) return false;
    }
    return true;
  };
  part.depth = rows[0].end - rows[0].first;
  if (is(0, 1)) {
    run_triangles<Left, Border::level, Border::ascends>(width, part);
    return true;
  }
  part.depth -= kTriangleRows - 1;
  if (part.depth < 0) return false;
  if (is(1, 0)) {
    run_triangles<Left, Border::ascends, Border::level>(width, part);
    return true;
  }
  if (is(1, 1)) {
    run_triangles<Left, Border::ascends, Border::ascends>(width, part);
    return true;
  }
  return false;
}

// The rows' spans, one after the other; call is that of row 0 and key 0, outputs continued.
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
    if (same == 1 && row + kTriangleRows <= count &&
        add_triangle<Left>(spans.subspan(static_cast<std::size_t>(row), kTriangleRows), width,
                           part)) {
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
