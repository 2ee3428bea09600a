// Lanes that are stored past the caches, where an op's output is (streamed.h).
#if defined(TUTTI_STREAMED_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TUTTI_STREAMED_INL
#undef TUTTI_STREAMED_INL
#else
#define TUTTI_STREAMED_INL
#endif

#include "kernels/cpu/caches/streamed.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

// As store(x, to, part). Streamed: each whole sixteen is a line.
HWY_INLINE void put(const Lanes& x, float* to, Whole, Writes writes) {
#if HWY_TARGET != HWY_SCALAR
  if (writes == Writes::streamed) {
    hn::Stream(x.a, kTag, to);
#if HWY_TARGET == HWY_AVX2
    hn::Stream(x.b, kTag, to + kVectorLanes);
#endif
    return;
  }
#endif
  store(x, to);
}
HWY_INLINE void put(const Lanes& x, float* to, Some part, Writes) { store(x, to, part); }
HWY_INLINE void put(const Twice& x, float* to, Both, Writes writes) {
  put(x.first, to, Whole{}, writes);
  put(x.second, to + kLanes, Whole{}, writes);
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
