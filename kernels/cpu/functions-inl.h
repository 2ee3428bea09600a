// tanh and erf of sixteen lanes, in fp32: the same bits on all paths, absolute error below 2^-22
// (tested). NaN stays NaN.
//
// Polynomials near zero, where a difference from 1 would cancel; the exponential of exp-inl.h
// beyond. Their coefficients are least-squares fits on Chebyshev nodes, reweighted towards equal
// errors; a remark gives the error that is left.
#if defined(TUTTI_FUNCTIONS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TUTTI_FUNCTIONS_INL
#undef TUTTI_FUNCTIONS_INL
#else
#define TUTTI_FUNCTIONS_INL
#endif

#include "kernels/cpu/exp-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

// tanh(x) = x + x^3 P(x^2) for |x| < 0.625 (relative error 2^-25), else 1 - 2 / (exp(2|x|) + 1)
// with the sign of x.
template <SomeLanes L>
HWY_INLINE L tanh(const L& x) {
  const L size = abs(x);
  const L u = x * x;
  L p = fma(L(splat(-6.113188341e-03F)), u, splat(2.101007849e-02F));
  p = fma(p, u, splat(-5.385407060e-02F));
  p = fma(p, u, splat(1.333279461e-01F));
  p = fma(p, u, splat(-3.333332837e-01F));
  const L near = fma(p * u, x, x);
  const Lanes one = splat(1.0F);
  const L far = one - splat(2.0F) / (exp(size + size) + one);
  return select_less(size, splat(0.625F), near, with_sign(far, x));
}

// erf(x) = x P(x^2) for |x| < 1 (relative error 2^-29), else 1 - exp(-Q(|x|)) with the sign of x,
// where Q fits -log(1 - erf) on [1, 4] (absolute error of erf 2^-35); from 4 on it is 1.
template <SomeLanes L>
HWY_INLINE L erf(const L& x) {
  const L size = abs(x);
  const L u = x * x;
  L p = fma(L(splat(7.889119297e-05F)), u, splat(-8.020841051e-04F));
  p = fma(p, u, splat(5.189535208e-03F));
  p = fma(p, u, splat(-2.685444430e-02F));
  p = fma(p, u, splat(1.128360033e-01F));
  p = fma(p, u, splat(-3.761262596e-01F));
  p = fma(p, u, splat(1.128379107e+00F));
  const L near = p * x;
  const L v = min(L(splat(4.0F)), size);
  L q = fma(L(splat(2.168685023e-05F)), v, splat(-4.413363640e-04F));
  q = fma(q, v, splat(4.204561934e-03F));
  q = fma(q, v, splat(-2.520825714e-02F));
  q = fma(q, v, splat(1.084185764e-01F));
  q = fma(q, v, splat(6.332198977e-01F));
  q = fma(q, v, splat(1.129578471e+00F));
  q = fma(q, v, splat(-1.880402269e-04F));
  // Q is between -2^-12 and 16: no limit of exp is near.
  const L far = one_minus(exp_factors(zero() - q));
  return select_less(size, splat(1.0F), near, with_sign(far, x));
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
