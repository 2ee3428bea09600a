// What kernels share that sum over rows of numbers: the softmax's two sums along a row, and chains
// down the columns.
#if defined(TUTTI_SUMS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TUTTI_SUMS_INL
#undef TUTTI_SUMS_INL
#else
#define TUTTI_SUMS_INL
#endif

#include <algorithm>
#include <limits>

#include "kernels/cpu/exp-inl.h"
#include "kernels/tensor/op_context.h"
#include "kernels/tensor/thread_pool.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

HWY_INLINE float largest_of(const float* x, Index width) {
  const Lanes lowest = splat(-std::numeric_limits<float>::infinity());
  Lanes largest = lowest;
  each_lanes(width, [&](Index i, auto part) {
    largest = max(largest, keep(load(x + i, part), part, lowest));
  });
  return max_lanes(largest);
}

// The sum of exp(x - top); `weights` takes the terms where it is given, and may be x.
HWY_INLINE float weigh(const float* x, float top, float* weights, Index width) {
  const Lanes offset = splat(top);
  Lanes sum = zero();
  each_lanes(width, [&](Index i, auto part) {
    const Lanes weight = keep(exp(load(x + i, part) - offset), part, zero());
    if (weights != nullptr) store(weight, weights + i, part);
    sum = sum + weight;
  });
  return sum_lanes(sum);
}

// body(column, part) for every sixteen columns, handed out to threads: for chains over rows, one a
// column.
template <class Body>
HWY_INLINE void each_columns(const OpContext& ctx, Index columns, const Body& body) {
  ctx.pool->parallel_for((columns + kLanes - 1) / kLanes, 4, [&](int, Index begin, Index end) {
    const Index first = begin * kLanes;
    each_lanes(std::min(end * kLanes, columns) - first,
               [&](Index i, auto part) { body(first + i, part); });
  });
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
