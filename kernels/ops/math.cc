#include "kernels/ops/math.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace tutti::kernels {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// c[0] + c[1] x + ... by Horner's rule.
template <int kCount>
double polynomial(const double (&c)[kCount], double x) {
  double value = c[kCount - 1];
  for (int i = kCount - 2; i >= 0; --i) value = std::fma(value, x, c[i]);
  return value;
}

// x 2^n for any n that a double's exponent can need; exact but for results below the normal
// numbers.
double scale(double x, int n) {
  const auto power = [](int e) {
    return std::bit_cast<double>(static_cast<std::uint64_t>(e + 1023) << 52);
  };
  if (n > 1023) return x * power(1023) * power(n - 1023);
  if (n < -1022) return x * power(n + 64) * power(-64);
  return x * power(n);
}

// 1 / k! for the Taylor series of exp; |r| <= ln2 / 2 needs 14 terms for 2^-56.
constexpr double kInverseFactorials[] = {1.0,
                                         1.0,
                                         1.0 / 2,
                                         1.0 / 6,
                                         1.0 / 24,
                                         1.0 / 120,
                                         1.0 / 720,
                                         1.0 / 5040,
                                         1.0 / 40320,
                                         1.0 / 362880,
                                         1.0 / 3628800,
                                         1.0 / 39916800,
                                         1.0 / 479001600,
                                         1.0 / 6227020800.0};

// ln2 = kLn2High + kLn2Low; the high part has 33 bits, so that n * kLn2High is exact.
constexpr double kLn2High = 0x1.62e42feep-1;
constexpr double kLn2Low = 0x1.a39ef35793c76p-33;
constexpr double kInverseLn2 = 0x1.71547652b82fep+0;

// exp(x + low) for a small correction `low`.
double exp_with_low(double x, double low) {
  if (std::isnan(x)) return x;
  if (x > 709.79) return kInfinity;
  if (x < -745.2) return 0.0;
  const double n = std::nearbyint(x * kInverseLn2);
  const double r = std::fma(-n, kLn2Low, std::fma(-n, kLn2High, x)) + low;
  return scale(polynomial(kInverseFactorials, r), static_cast<int>(n));
}

// log(x) as high + low, |low| about an ulp of high.
struct Pair {
  double high;
  double low;
};

Pair log_pair(double x) {
  int exponent = 0;
  if (x < 0x1p-1022) {
    x *= 0x1p54;
    exponent = -54;
  }
  const auto bits = std::bit_cast<std::uint64_t>(x);
  exponent += static_cast<int>(bits >> 52) - 1023;
  double m = std::bit_cast<double>((bits & 0xfffffffffffffULL) | (std::uint64_t{1023} << 52));
  if (m > 1.4142135623730951) {
    m *= 0.5;
    ++exponent;
  }
  // log m = 2 atanh(s) with s = (m - 1) / (m + 1), |s| <= 0.1716: s + s^3 / 3 + ... to s^23. The
  // quotient's rounding is kept in `s_low`.
  constexpr double kSeries[] = {2.0 / 3,  2.0 / 5,  2.0 / 7,  2.0 / 9,  2.0 / 11, 2.0 / 13,
                                2.0 / 15, 2.0 / 17, 2.0 / 19, 2.0 / 21, 2.0 / 23};
  const double f = m - 1.0;
  const double g = m + 1.0;  // rounded; its error is f + 2 - g, exactly
  const double g_low = f - (g - 2.0);
  const double s = f / g;
  const double s_low = (std::fma(-s, g, f) - s * g_low) / g;
  const double z = s * s;
  const double tail = s * z * polynomial(kSeries, z);
  const double n = exponent;
  const double high = n * kLn2High;
  const double sum = high + 2.0 * s;
  const double rest =
      std::abs(high) >= std::abs(2.0 * s) ? (high - sum) + 2.0 * s : (2.0 * s - sum) + high;
  const double low = rest + (std::fma(n, kLn2Low, 2.0 * s_low) + tail);
  const double total = sum + low;
  return {total, (sum - total) + low};
}

// x = quadrant * pi/2 + high + low with |high| <= pi/4; pi/2 in three parts of 33 bits and a rest.
struct Reduced {
  std::int64_t quadrant;
  double high;
  double low;
};

Reduced reduce(double x) {
  constexpr double kTwoOverPi = 0x1.45f306dc9c883p-1;
  constexpr double kPart1 = 0x1.921fb544p+0;
  constexpr double kPart2 = 0x1.0b4611a6p-34;
  constexpr double kPart3 = 0x1.3198a2e037073p-69;
  const double n = std::nearbyint(x * kTwoOverPi);
  // The first step is exact (both numbers are multiples of one unit and the difference is small);
  // what the second loses is kept.
  const double a = std::fma(-n, kPart1, x);
  const double p = n * kPart2;
  const double p_low = std::fma(n, kPart2, -p);
  const double b = a - p;
  const double t = b - a;
  const double b_low = (a - (b - t)) - (p + t);
  const double low = std::fma(-n, kPart3, b_low - p_low);
  const double high = b + low;
  return {static_cast<std::int64_t>(n), high, (b - high) + low};
}

double sin_reduced(const Reduced& r) {
  constexpr double kSeries[] = {-1.0 / 6,
                                1.0 / 120,
                                -1.0 / 5040,
                                1.0 / 362880,
                                -1.0 / 39916800,
                                1.0 / 6227020800.0,
                                -1.0 / 1307674368000.0,
                                1.0 / 355687428096000.0};
  const double z = r.high * r.high;
  const double series = r.high * z * polynomial(kSeries, z);
  return r.high + std::fma(r.low, 1.0 - 0.5 * z, series);
}

double cos_reduced(const Reduced& r) {
  constexpr double kSeries[] = {1.0 / 24,
                                -1.0 / 720,
                                1.0 / 40320,
                                -1.0 / 3628800,
                                1.0 / 479001600,
                                -1.0 / 87178291200.0,
                                1.0 / 20922789888000.0,
                                -1.0 / 6402373705728000.0};
  const double z = r.high * r.high;
  const double half = 0.5 * z;
  const double head = 1.0 - half;
  const double lost = (1.0 - head) - half;
  return head + (lost + std::fma(z * z, polynomial(kSeries, z), -r.high * r.low));
}

constexpr double kAngleMax = 0x1p27;

}  // namespace

double exp(double x) { return exp_with_low(x, 0.0); }

double log(double x) {
  if (std::isnan(x) || x < 0.0) return kNan;
  if (x == 0.0) return -kInfinity;
  if (x == kInfinity) return x;
  return log_pair(x).high;
}

double sin(double x) {
  if (!(std::abs(x) < kAngleMax)) return kNan;
  const Reduced r = reduce(x);
  const double value = (r.quadrant & 1) != 0 ? cos_reduced(r) : sin_reduced(r);
  return (r.quadrant & 2) != 0 ? -value : value;
}

double cos(double x) {
  if (!(std::abs(x) < kAngleMax)) return kNan;
  const Reduced r = reduce(x);
  const double value = (r.quadrant & 1) != 0 ? sin_reduced(r) : cos_reduced(r);
  return ((r.quadrant + 1) & 2) != 0 ? -value : value;
}

double tanh(double x) {
  const double a = std::abs(x);
  if (!(a < 20.0)) return std::isnan(x) ? x : std::copysign(1.0, x);
  // (1 - e) / (1 + e) with e = exp(-2a).
  const double e = exp(-2.0 * a);
  return std::copysign((1.0 - e) / (1.0 + e), x);
}

double power(double x, double y) {
  if (y == 0.0) return 1.0;
  if (!(x > 0.0)) return x == 0.0 && y > 0.0 ? 0.0 : kNan;
  const Pair l = log_pair(x);
  const double product = y * l.high;
  const double low = std::fma(y, l.high, -product) + y * l.low;
  return exp_with_low(product, low);
}

double power(double x, unsigned n) {
  double value = 1.0;
  for (; n != 0; n >>= 1) {
    if ((n & 1) != 0) value *= x;
    x *= x;
  }
  return value;
}

}  // namespace tutti::kernels
