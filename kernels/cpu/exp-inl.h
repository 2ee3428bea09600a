// exp of sixteen lanes, in fp32: the same bits on both paths, relative error below 2^-22 (tested),
// exactly 1 at 0.
//
// x = n ln2 + r with |r| <= ln2 / 2, exp(r) by its Taylor polynomial of degree 7 (truncation
// 2^-27), times 2^n. Below -87.3 the result is 0 (it would leave the normal numbers); above 88.3 it
// is that of 88.3. NaN stays NaN.
#if defined(TUTTI_EXP_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TUTTI_EXP_INL
#undef TUTTI_EXP_INL
#else
#define TUTTI_EXP_INL
#endif

#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

inline constexpr float kExpMin = -87.3365478515625F;
inline constexpr float kExpMax = 88.3762626647949F;

// exp(x) = value * power, exactly; of x from kExpMin to kExpMax, or NaN.
template <SomeLanes L>
struct ExpFactors {
  L value;  // exp(r)
  L power;  // 2^n
};
template <SomeLanes L>
HWY_INLINE ExpFactors<L> exp_factors(const L& x) {
  // Added to a number below 2^22, it leaves the nearest whole one, ties to even.
  const Lanes rounder = splat(12582912.0F);
  const L t = x * splat(1.44269504088896341F) + rounder;
  const L n = t - rounder;
  L r = fnma(n, splat(0.693145751953125F), x);
  r = fnma(n, splat(1.42860677e-06F), r);
  L p = fma(L(splat(1.98412698e-4F)), r, splat(1.38888889e-3F));
  p = fma(p, r, splat(8.33333333e-3F));
  p = fma(p, r, splat(4.16666667e-2F));
  p = fma(p, r, splat(1.66666667e-1F));
  p = fma(p, r, splat(0.5F));
  p = fma(p, r, splat(1.0F));
  p = fma(p, r, splat(1.0F));
  return {p, power_of_two(t)};
}

// Of lanes that are at most kExpMax, or NaN. What ends as 0 has other factors, which are not used.
template <SomeLanes L>
HWY_INLINE L exp_of_bounded(const L& x) {
  const ExpFactors<L> factors = exp_factors(x);
  return select_less(x, splat(kExpMin), zero(), factors.value * factors.power);
}

// The second operand of min is what a NaN gives.
template <SomeLanes L>
HWY_INLINE L exp(const L& x) {
  return exp_of_bounded(min(L(splat(kExpMax)), x));
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
