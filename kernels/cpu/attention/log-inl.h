// The logarithm of many fp32 numbers in double precision, rounded to fp32: the bits of
// static_cast<float>(kernels::log(x)), eight or four at a time.
//
// The operations are those of math.cc one by one (but for a branch of its two-term sum, whose sides
// agree for the numbers that come here); tests compare them.
#if defined(TUTTI_ATTENTION_LOG_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TUTTI_ATTENTION_LOG_INL
#undef TUTTI_ATTENTION_LOG_INL
#else
#define TUTTI_ATTENTION_LOG_INL
#endif

#include <limits>

#include "kernels/cpu/lanes-inl.h"
#include "kernels/ops/math.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

HWY_INLINE float log_alone(float x) {
  return static_cast<float>(kernels::log(static_cast<double>(x)));
}

#if HWY_TARGET == HWY_SCALAR

HWY_INLINE void log_all(const float* x, float* y, Index count) {
  for (Index i = 0; i < count; ++i) y[i] = log_alone(x[i]);
}

#else

// As in math.cc.
inline constexpr double kLogTwoHigh = 0x1.62e42feep-1;
inline constexpr double kLogTwoLow = 0x1.a39ef35793c76p-33;

using WideTag = hn::ScalableTag<double>;
using WideVector = hn::Vec<WideTag>;

// Normal numbers only.
HWY_INLINE WideVector log_wide(const float* from) {
  const WideTag wide;
  const hn::Rebind<float, WideTag> narrow;
  const hn::RebindToSigned<decltype(narrow)> whole;
  const auto constant = [&](double value) HWY_ATTR { return hn::Set(wide, value); };
  const auto bits = hn::BitCast(whole, hn::LoadU(narrow, from));
  auto exponent = hn::Sub(hn::ShiftRight<23>(bits), hn::Set(whole, 127));
  auto mantissa = hn::BitCast(
      narrow, hn::Or(hn::And(bits, hn::Set(whole, 0x7fffff)), hn::Set(whole, 0x3f800000)));
  // The largest fp32 number not above the square root of 2.
  const auto large = hn::Gt(mantissa, hn::Set(narrow, 1.41421353816986083984375F));
  mantissa = hn::IfThenElse(large, hn::Mul(mantissa, hn::Set(narrow, 0.5F)), mantissa);
  exponent =
      hn::IfThenElse(hn::RebindMask(whole, large), hn::Add(exponent, hn::Set(whole, 1)), exponent);
  const WideVector m = hn::PromoteTo(wide, mantissa);
  const WideVector n = hn::PromoteTo(wide, exponent);
  const WideVector f = hn::Sub(m, constant(1.0));
  const WideVector g = hn::Add(m, constant(1.0));
  const WideVector g_low = hn::Sub(f, hn::Sub(g, constant(2.0)));
  const WideVector s = hn::Div(f, g);
  const WideVector s_low = hn::Div(hn::Sub(hn::NegMulAdd(s, g, f), hn::Mul(s, g_low)), g);
  const WideVector z = hn::Mul(s, s);
  WideVector series = constant(2.0 / 23);
  for (const double term : {2.0 / 21, 2.0 / 19, 2.0 / 17, 2.0 / 15, 2.0 / 13, 2.0 / 11, 2.0 / 9,
                            2.0 / 7, 2.0 / 5, 2.0 / 3}) {
    series = hn::MulAdd(series, z, constant(term));
  }
  const WideVector tail = hn::Mul(hn::Mul(s, z), series);
  const WideVector twice = hn::Mul(constant(2.0), s);
  const WideVector high = hn::Mul(n, constant(kLogTwoHigh));
  const WideVector sum = hn::Add(high, twice);
  const WideVector rest = hn::Add(hn::Sub(high, sum), twice);
  const WideVector low = hn::Add(
      rest, hn::Add(hn::MulAdd(n, constant(kLogTwoLow), hn::Mul(constant(2.0), s_low)), tail));
  return hn::Add(sum, low);
}

// y[i] of x[i]; count is a multiple of sixteen.
HWY_INLINE void log_all(const float* x, float* y, Index count) {
  const hn::Rebind<float, WideTag> narrow;
  for (Index i = 0; i < count; i += kVectorLanes / 2) {
    hn::StoreU(hn::DemoteTo(narrow, log_wide(x + i)), narrow, y + i);
  }
  for (Index i = 0; i < count; ++i) {
    const bool normal =
        x[i] >= std::numeric_limits<float>::min() && x[i] <= std::numeric_limits<float>::max();
    if (!normal) y[i] = log_alone(x[i]);
  }
}

#endif

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
