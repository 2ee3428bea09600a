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

// Of x up to kExpMax, or NaN.
HWY_INLINE Vector exp_bounded(Vector x) {
  const hn::RebindToSigned<Tag> whole;
  const auto constant = [](float value) HWY_ATTR { return hn::Set(kTag, value); };
  // 1.5 * 2^23: added to a number below 2^22, it leaves the nearest whole one, ties to even, in the
  // last bits; of these the exponent is made by a shift. What ends as 0 has other numbers there,
  // which are not used.
  const Vector rounder = constant(12582912.0F);
  const auto vanishes = hn::Lt(x, constant(kExpMin));
  const Vector t = hn::Add(hn::Mul(x, constant(1.44269504088896341F)), rounder);
  const Vector n = hn::Sub(t, rounder);
  Vector r = hn::NegMulAdd(n, constant(0.693145751953125F), x);
  r = hn::NegMulAdd(n, constant(1.42860677e-06F), r);
  Vector p = constant(1.98412698e-4F);
  p = hn::MulAdd(p, r, constant(1.38888889e-3F));
  p = hn::MulAdd(p, r, constant(8.33333333e-3F));
  p = hn::MulAdd(p, r, constant(4.16666667e-2F));
  p = hn::MulAdd(p, r, constant(1.66666667e-1F));
  p = hn::MulAdd(p, r, constant(0.5F));
  p = hn::MulAdd(p, r, constant(1.0F));
  p = hn::MulAdd(p, r, constant(1.0F));
  const auto exponent = hn::Add(hn::BitCast(whole, t), hn::Set(whole, 127));
  const Vector power = hn::BitCast(kTag, hn::ShiftLeft<23>(exponent));
  return hn::IfThenElse(vanishes, hn::Zero(kTag), hn::Mul(p, power));
}

// The second operand of min is what a NaN gives.
HWY_INLINE Vector exp_vector(Vector x) { return exp_bounded(hn::Min(hn::Set(kTag, kExpMax), x)); }

HWY_INLINE Lanes exp(const Lanes& x) { return TUTTI_LANES(exp_vector(x.a), exp_vector(x.b)); }
// Of lanes that are at most kExpMax, or NaN.
HWY_INLINE Lanes exp_of_bounded(const Lanes& x) {
  return TUTTI_LANES(exp_bounded(x.a), exp_bounded(x.b));
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
