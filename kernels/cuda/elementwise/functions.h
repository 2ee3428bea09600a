// tanh, erf and the activations of activation.h for kernels: the arithmetic of
// kernels/cpu/functions-inl.h and activation-inl.h, step by step, so the same bits as on a CPU.
#pragma once

#include "kernels/cuda/elementary.h"
#include "kernels/ops/elementwise/activation.h"

namespace tutti::kernels::cuda {

// x + x^3 P(x^2) for |x| < 0.625, else 1 - 2 / (exp(2|x|) + 1) with the sign of x.
__device__ __forceinline__ float tanh32(float x) {
  const float size = fabsf(x);
  if (size < 0.625F) {
    const float u = x * x;
    float p = -6.113188341e-03F;
    p = fmaf(p, u, 2.101007849e-02F);
    p = fmaf(p, u, -5.385407060e-02F);
    p = fmaf(p, u, 1.333279461e-01F);
    p = fmaf(p, u, -3.333332837e-01F);
    return fmaf(p * u, x, x);
  }
  const float far = 1.0F - 2.0F / (exp32(size + size) + 1.0F);
  return x < 0.0F ? 0.0F - far : far;
}

// x P(x^2) for |x| < 1, else 1 - exp(-Q(|x|)) with the sign of x; from 4 on it is 1.
__device__ __forceinline__ float erf32(float x) {
  const float size = fabsf(x);
  if (size < 1.0F) {
    const float u = x * x;
    float p = 7.889119297e-05F;
    p = fmaf(p, u, -8.020841051e-04F);
    p = fmaf(p, u, 5.189535208e-03F);
    p = fmaf(p, u, -2.685444430e-02F);
    p = fmaf(p, u, 1.128360033e-01F);
    p = fmaf(p, u, -3.761262596e-01F);
    p = fmaf(p, u, 1.128379107e+00F);
    return p * x;
  }
  const float v = size > 4.0F ? 4.0F : size;  // NaN stays
  float q = 2.168685023e-05F;
  q = fmaf(q, v, -4.413363640e-04F);
  q = fmaf(q, v, 4.204561934e-03F);
  q = fmaf(q, v, -2.520825714e-02F);
  q = fmaf(q, v, 1.084185764e-01F);
  q = fmaf(q, v, 6.332198977e-01F);
  q = fmaf(q, v, 1.129578471e+00F);
  q = fmaf(q, v, -1.880402269e-04F);
  const float far = 1.0F - exp32(0.0F - q);
  return x < 0.0F ? 0.0F - far : far;
}

__device__ __forceinline__ float sigmoid(float x) { return 1.0F / (1.0F + exp32(0.0F - x)); }

// f(x) and its derivative.
struct ValueSlope {
  float value, slope;
};

__device__ __forceinline__ ValueSlope activate(Activation kind, float x) {
  switch (kind) {
    case Activation::gelu: {
      const float part = 0.5F * (1.0F + erf32(x * 0.70710678F));
      const float density = 0.39894228F * exp32(-0.5F * (x * x));
      return {x * part, fmaf(x, density, part)};
    }
    case Activation::gelu_tanh: {
      // (1 + tanh u) / 2 = 1 / (1 + exp(-2u))
      const float part = sigmoid(x * fmaf(0.07135481F, x * x, 1.5957691F));
      const float du = fmaf(0.21406444F, x * x, 1.5957691F);
      return {x * part, fmaf(x * (part * (1.0F - part)), du, part)};
    }
    case Activation::silu: {
      const float part = sigmoid(x);
      return {x * part, part * fmaf(x, 1.0F - part, 1.0F)};
    }
    case Activation::relu: break;
  }
  return x > 0.0F ? ValueSlope{x, 1.0F} : ValueSlope{0.0F, 0.0F};
}

}  // namespace tutti::kernels::cuda
