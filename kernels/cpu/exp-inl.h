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

HWY_INLINE Vector exp_vector(Vector wide) {
  const hn::RebindToSigned<Tag> whole;
  const auto constant = [](float value) HWY_ATTR { return hn::Set(kTag, value); };
  // What ends as 0 is computed as exp(0): of kExpMin itself the product below is no normal number,
  // which costs some machines a hundred cycles. The second operand of min is what a NaN gives.
  const auto vanishes = hn::Lt(wide, constant(kExpMin));
  const Vector x = hn::IfThenElse(vanishes, hn::Zero(kTag), hn::Min(constant(kExpMax), wide));
  const Vector n = hn::Round(hn::Mul(x, constant(1.44269504088896341F)));
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
  const auto exponent = hn::Add(hn::ConvertTo(whole, n), hn::Set(whole, 127));
  const Vector power = hn::BitCast(kTag, hn::ShiftLeft<23>(exponent));
  return hn::IfThenElse(vanishes, hn::Zero(kTag), hn::Mul(p, power));
}

HWY_INLINE Lanes exp(const Lanes& x) { return TUTTI_LANES(exp_vector(x.a), exp_vector(x.b)); }

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
