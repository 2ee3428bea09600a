// The sum of squares of a grid block, in double precision.
#if defined(TUTTI_SQUARES_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TUTTI_SQUARES_INL
#undef TUTTI_SQUARES_INL
#else
#define TUTTI_SQUARES_INL
#endif

#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

// Lane i sums the squares of elements i, i + 16, i + 32, ... in double precision; a square of an
// fp32 number is exact there. Continued from `lane`; only the last part of a block may end within
// sixteen elements.
HWY_INLINE void add_squares(const float* values, Index count, double* lane) {
  const hn::ScalableTag<double> wide;
  const hn::Rebind<float, decltype(wide)> narrow;
  constexpr Index kWideLanes = kVectorLanes / 2;
  constexpr int kParts = kLanes / kWideLanes;
  hn::Vec<decltype(wide)> sum[kParts];
  for (int p = 0; p < kParts; ++p) sum[p] = hn::LoadU(wide, lane + p * kWideLanes);
  Index i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int p = 0; p < kParts; ++p) {
      const auto value = hn::PromoteTo(wide, hn::LoadU(narrow, values + i + p * kWideLanes));
      sum[p] = hn::MulAdd(value, value, sum[p]);
    }
  }
  for (int p = 0; p < kParts; ++p) hn::StoreU(sum[p], wide, lane + p * kWideLanes);
  for (Index k = 0; i + k < count; ++k) {
    const auto value = static_cast<double>(values[i + k]);
    lane[k] += value * value;
  }
}

HWY_INLINE double fold_squares(double* lane) {
  for (int half = 8; half > 0; half /= 2) {
    for (int k = 0; k < half; ++k) lane[k] += lane[k + half];
  }
  return lane[0];
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
