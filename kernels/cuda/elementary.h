// exp in fp32 and in double precision, and log in the latter, for kernels: the arithmetic of
// kernels/cpu/exp-inl.h and of kernels/ops/math.cc, step by step, so the same bits as on a CPU.
//
// exp32: x = n ln2 + r, |r| <= ln2 / 2, a polynomial of degree 7, times 2^n; relative error below
// 2^-22, exactly 1 at 0; 0 below -87.3, that of 88.3 above it. nvcc builds with --fmad=false: a
// fused multiply-add is written where it is meant.
#pragma once

#include "kernels/cuda/launch.h"

namespace tutti::kernels::cuda {

__device__ __forceinline__ float exp32(float wide) {
  constexpr float kMin = -87.3365478515625F;
  constexpr float kMax = 88.3762626647949F;
  if (wide != wide) return wide;
  float x = wide < kMax ? wide : kMax;
  x = x > kMin ? x : kMin;
  const float n = rintf(x * 1.44269504088896341F);
  float r = fmaf(-n, 0.693145751953125F, x);
  r = fmaf(-n, 1.42860677e-06F, r);
  float p = 1.98412698e-4F;
  p = fmaf(p, r, 1.38888889e-3F);
  p = fmaf(p, r, 8.33333333e-3F);
  p = fmaf(p, r, 4.16666667e-2F);
  p = fmaf(p, r, 1.66666667e-1F);
  p = fmaf(p, r, 0.5F);
  p = fmaf(p, r, 1.0F);
  p = fmaf(p, r, 1.0F);
  const unsigned bits = static_cast<unsigned>(static_cast<int>(n) + 127) << 23;
  float power = 0.0F;
  memcpy(&power, &bits, sizeof(power));
  return wide < kMin ? 0.0F : p * power;
}

__device__ __forceinline__ double power_of_two(int n) {
  const auto bits = static_cast<unsigned long long>(n + 1023) << 52;
  double value = 0.0;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

__device__ inline double exp64(double x) {
  if (x != x) return x;
  if (x > 709.79) return INFINITY;
  if (x < -745.2) return 0.0;
  const double n = rint(x * 0x1.71547652b82fep+0);
  const double r = fma(-n, 0x1.a39ef35793c76p-33, fma(-n, 0x1.62e42feep-1, x));
  double p = 1.0 / 6227020800.0;
  p = fma(p, r, 1.0 / 479001600);
  p = fma(p, r, 1.0 / 39916800);
  p = fma(p, r, 1.0 / 3628800);
  p = fma(p, r, 1.0 / 362880);
  p = fma(p, r, 1.0 / 40320);
  p = fma(p, r, 1.0 / 5040);
  p = fma(p, r, 1.0 / 720);
  p = fma(p, r, 1.0 / 120);
  p = fma(p, r, 1.0 / 24);
  p = fma(p, r, 1.0 / 6);
  p = fma(p, r, 1.0 / 2);
  p = fma(p, r, 1.0);
  p = fma(p, r, 1.0);
  const int power = static_cast<int>(n);
  if (power > 1023) return p * power_of_two(1023) * power_of_two(power - 1023);
  if (power < -1022) return p * power_of_two(power + 64) * power_of_two(-64);
  return p * power_of_two(power);
}

// The high part of math.cc's pair of numbers.
__device__ inline double log64(double x) {
  if (!(x >= 0.0)) return NAN;
  if (x == 0.0) return -INFINITY;
  if (x == INFINITY) return x;
  int exponent = -1023;
  if (x < 0x1p-1022) {
    x *= 0x1p54;
    exponent -= 54;
  }
  unsigned long long bits = 0;
  memcpy(&bits, &x, sizeof(bits));
  exponent += static_cast<int>(bits >> 52);
  bits = (bits & 0xfffffffffffffULL) | (1023ULL << 52);
  double m = 0.0;
  memcpy(&m, &bits, sizeof(m));
  if (m > 1.4142135623730951) {
    m *= 0.5;
    ++exponent;
  }
  const double f = m - 1.0;
  const double g = m + 1.0;
  const double g_low = f - (g - 2.0);
  const double s = f / g;
  const double s_low = (fma(-s, g, f) - s * g_low) / g;
  const double z = s * s;
  double p = 2.0 / 23;
  p = fma(p, z, 2.0 / 21);
  p = fma(p, z, 2.0 / 19);
  p = fma(p, z, 2.0 / 17);
  p = fma(p, z, 2.0 / 15);
  p = fma(p, z, 2.0 / 13);
  p = fma(p, z, 2.0 / 11);
  p = fma(p, z, 2.0 / 9);
  p = fma(p, z, 2.0 / 7);
  p = fma(p, z, 2.0 / 5);
  p = fma(p, z, 2.0 / 3);
  const double tail = s * z * p;
  const double n = exponent;
  const double high = n * 0x1.62e42feep-1;
  const double twice = 2.0 * s;
  const double sum = high + twice;
  const double rest = fabs(high) >= fabs(twice) ? (high - sum) + twice : (twice - sum) + high;
  return sum + (rest + (fma(n, 0x1.a39ef35793c76p-33, 2.0 * s_low) + tail));
}

// The bits of kernels/cpu/attention/log-inl.h.
__device__ inline float log32(float x) { return static_cast<float>(log64(static_cast<double>(x))); }

}  // namespace tutti::kernels::cuda
