// What kernels share that sum over rows of numbers: additions of rows, the softmax's two sums along
// a row, and chains down the columns.
#if defined(TUTTI_SUMS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TUTTI_SUMS_INL
#undef TUTTI_SUMS_INL
#else
#define TUTTI_SUMS_INL
#endif

#include <algorithm>
#include <cstdint>
#include <limits>

#include "kernels/cpu/exp-inl.h"
#include "kernels/tensor/op_context.h"
#include "kernels/tensor/thread_pool.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

HWY_INLINE void add_row(float* to, const float* from, Index count) {
  each_lanes(count, [&](Index i, auto part) {
    store(load(to + i, part) + load(from + i, part), to + i, part);
  });
}

// Rows [first, last).
struct RowSpan {
  Index first = 0;
  Index last = 0;

  Index count() const { return last - first; }
};

// visit(rows) for spans in order in which `floats` numbers of a row lie in an outer cache of one
// thread, or in that of all: for ops that read rows twice.
template <class Visit>
HWY_INLINE void each_span(Index rows, Index floats, Index threads, const Visit& visit) {
  const Index held = threads == 1 ? Index{1} << 16 : Index{1} << 20;
  const Index step = std::max<Index>(8, held / std::max<Index>(1, floats) / 8 * 8);
  for (Index row = 0; row < rows; row += step) visit(RowSpan{row, std::min(row + step, rows)});
}

// The largest of what is read beside other work, lane by lane.
struct Largest {
  Lanes lanes;

  template <class Part>
  HWY_INLINE void take(const float* x, Part part) {
    lanes = max(lanes, keep(load(x, part), part, splat(-std::numeric_limits<float>::infinity())));
  }
};
HWY_INLINE Largest no_largest() { return {splat(-std::numeric_limits<float>::infinity())}; }

HWY_INLINE float largest_of(const float* x, Index width) {
  Largest largest = no_largest();
  each_lanes(width, [&](Index i, auto part) { largest.take(x + i, part); });
  return max_lanes(largest.lanes);
}

// The sum of exp(x - top); `weights` takes the terms where it is given, and may be x. Next::asked:
// the row behind is asked for beside the arithmetic, `stride` numbers on.
enum class Next { left, asked };
template <Next kNext = Next::left>
HWY_INLINE float weigh(const float* x, float top, float* weights, Index width, Index stride = 0) {
  const Lanes offset = splat(top);
  // Of an address, not a pointer: behind the last row there may be nothing.
  [[maybe_unused]] const auto next =
      reinterpret_cast<std::uintptr_t>(x) + static_cast<std::uintptr_t>(stride) * sizeof(float);
  Lanes sum = zero();
  each_lanes_twice(width, [&](Index i, auto part) {
    if constexpr (kNext == Next::asked) {
      const auto at = next + static_cast<std::uintptr_t>(i) * sizeof(float);
      __builtin_prefetch(reinterpret_cast<const void*>(at), 0, 2);
      __builtin_prefetch(reinterpret_cast<const void*>(at + kLanes * sizeof(float)), 0, 2);
    }
    const auto weight = keep(exp(load(x + i, part) - offset), part, zero());
    if (weights != nullptr) store(weight, weights + i, part);
    sum = add_in_order(sum, weight);
  });
  return sum_lanes(sum);
}

// For chains over rows, one a column, that go on through memory: body(column, part, some) takes
// some of the rows, in order, into the chains of sixteen columns. Columns are handed out to threads
// in strips, and each strip is read row by row, a few rows together: as memory is fast.
template <class Body>
HWY_INLINE void each_columns(const OpContext& ctx, RowSpan rows, Index columns, const Body& body) {
  constexpr Index kTogether = 8;
  const Index groups = (columns + kLanes - 1) / kLanes;
  const Index strip = std::clamp<Index>(groups / (2 * ctx.pool->threads()), 4, 64);
  ctx.pool->parallel_for(groups, strip, [&](int, Index begin, Index end) {
    const Index first = begin * kLanes;
    const Index width = std::min(end * kLanes, columns) - first;
    for (Index row = rows.first; row < rows.last; row += kTogether) {
      const RowSpan some{row, std::min(row + kTogether, rows.last)};
      each_lanes(width, [&](Index i, auto part) { body(first + i, part, some); });
    }
  });
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
