// exp of sixteen lanes, in fp32: the same bits on both paths, relative error below 2^-22 (tested),
// exactly 1 at 0.
//
// x = n ln2 + r with |r| <= ln2 / 2, exp(r) by its Taylor polynomial of degree 7 (truncation
// 2^-27), times 2^n. Below -87.3 the result is 0 (it would leave the normal numbers), or below what
// is said to be the least; above 88.3 it is that of 88.3. NaN stays NaN.
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
// A weight of a softmax below this passes nothing back (decision 0103): what is multiplied by it
// stays far from the denormal numbers, which take some machines 150 cycles each.
inline constexpr float kFaintest = 0x1p-80F;
inline constexpr float kFaintestLog = -55.4517744F;
// Added to a number below 2^22, it leaves the nearest whole one, ties to even.
inline constexpr float kExpRounder = 12582912.0F;

// exp(x) = value * 2^n, exactly; of x from kExpMin to kExpMax, or NaN.
template <SomeLanes L>
struct ExpFactors {
  L value;  // exp(r)
  L t;      // n + kExpRounder
};
template <SomeLanes L>
HWY_INLINE ExpFactors<L> exp_factors(const L& x) {
  const Lanes rounder = splat(kExpRounder);
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
  return {p, t};
}

// exp(x) of its factors where x is at least `least`, which is kExpMin or more, or NaN, else 0.
#if HWY_TARGET == HWY_AVX3
// One operation scales by 2^n and selects, where the other paths have four. It rounds nothing, as
// their product does: no result leaves the normal numbers.
HWY_INLINE Lanes scaled(const Lanes& value, const Lanes& t, const Lanes& x, float least) {
  const auto counts = _mm512_cmp_ps_mask(x.a.raw, splat(least).a.raw, _CMP_NLT_UQ);
  return {Vector{_mm512_maskz_scalef_ps(counts, value.a.raw, (t - splat(kExpRounder)).a.raw)}};
}
HWY_INLINE Twice scaled(const Twice& value, const Twice& t, const Twice& x, float least) {
  return {scaled(value.first, t.first, x.first, least),
          scaled(value.second, t.second, x.second, least)};
}
template <SomeLanes L>
HWY_INLINE L exp_of_factors(const ExpFactors<L>& of, const L& x, float least) {
  return scaled(of.value, of.t, x, least);
}
#else
template <SomeLanes L>
HWY_INLINE L exp_of_factors(const ExpFactors<L>& of, const L& x, float least) {
  return select_less(x, splat(least), zero(), of.value * power_of_two(of.t));
}
#endif
// 1 - exp(x), of x from kExpMin on: the product is exact.
template <SomeLanes L>
HWY_INLINE L one_minus(const ExpFactors<L>& of) {
  return fnma(of.value, power_of_two(of.t), splat(1.0F));
}

// Of lanes that are at most kExpMax, or NaN. What ends as 0 has other factors, which are not used.
template <SomeLanes L>
HWY_INLINE L exp_of_bounded(const L& x, float least = kExpMin) {
  return exp_of_factors(exp_factors(x), x, least);
}

// The second operand of min is what a NaN gives.
template <SomeLanes L>
HWY_INLINE L exp(const L& x, float least = kExpMin) {
  return exp_of_bounded(min(L(splat(kExpMax)), x), least);
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
