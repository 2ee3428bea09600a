// exp in fp32 for kernels: the arithmetic of kernels/cpu/exp-inl.h, step by step, so the same bits
// as on a CPU.
//
// x = n ln2 + r, |r| <= ln2 / 2, a polynomial of degree 7, times 2^n; relative error below 2^-22,
// exactly 1 at 0; 0 below -87.3, that of 88.3 above it. nvcc builds with --fmad=false: a fused
// multiply-add is written where it is meant.
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

}  // namespace tutti::kernels::cuda
