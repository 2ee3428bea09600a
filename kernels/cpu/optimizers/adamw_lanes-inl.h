// The arithmetic of one AdamW step, for states in fp32 and in 8 bits.
#if defined(TUTTI_ADAMW_LANES_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TUTTI_ADAMW_LANES_INL
#undef TUTTI_ADAMW_LANES_INL
#else
#define TUTTI_ADAMW_LANES_INL
#endif

#include "kernels/cpu/lanes-inl.h"
#include "kernels/ops/adamw.h"

#ifndef TUTTI_ADAMW_RANGE
#define TUTTI_ADAMW_RANGE
namespace tutti::kernels {

struct AdamWPointers {
  float* weight;
  const float* gradient;
  float* first;
  float* second;
};

}  // namespace tutti::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

HWY_INLINE void adamw_range(const AdamWConstants& c, const AdamWPointers& range, Index count) {
  each_lanes(count, [&](Index i, auto part) {
    const Lanes g = load(range.gradient + i, part) * splat(c.factor);
    const Lanes first = fma(splat(c.beta1), load(range.first + i, part), splat(c.rest1) * g);
    const Lanes second = fma(splat(c.beta2), load(range.second + i, part), splat(c.rest2) * g * g);
    const Lanes scale = sqrt(second) / splat(c.root) + splat(c.epsilon);
    const Lanes weight = load(range.weight + i, part) * splat(c.keep);
    store(fnma(splat(c.step), first / scale, weight), range.weight + i, part);
    store(first, range.first + i, part);
    store(second, range.second + i, part);
  });
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
