// Activations element by element, with their gradients, alone or as a gate: y = f(gate) * up.
//
//   x, y, dy, dx, gate, up, dgate, dup   [rows, C]   outputs may be inputs of the same place
//   rounded                              [rows, C]   of y, of dx: beside it or in its place
//                                                    (rounded.h); overlaps no input
//   sums                                 [C]         column_sums of dx, continued (product.h)
//
//   gelu       x/2 (1 + erf(x / sqrt 2))                                  Hendrycks & Gimpel 2016
//   gelu_tanh  x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))              ... GPT-2, Gemma
//   silu       x / (1 + exp(-x))                                          silu_gate.h gates with it
//   relu       max(x, 0)                                                  NaN gives 0
//
// In fp32; the functions are ours and err by less than 2^-21 of max(1, |x|). As a gate: GEGLU and
// its kin (Shazeer 2020). Errors: invalid_argument; those of rounded.h; nothing is written then.
#pragma once

#include "kernels/ops/elementwise/rounded.h"
#include "kernels/tensor/matrix.h"
#include "kernels/tensor/op_context.h"
#include "protocol/base/result.h"

namespace tutti::kernels {

enum class Activation { gelu, gelu_tanh, silu, relu };

struct ActivationForward {
  Activation kind = Activation::gelu;
  ConstMatrix x;
  Matrix y;
  RoundedMatrix rounded = {};
};
Result<> activation_forward(const OpContext& ctx, const ActivationForward& args);

struct ActivationBackward {
  Activation kind = Activation::gelu;
  ConstMatrix dy;
  ConstMatrix x;
  Matrix dx;
  RoundedMatrix rounded = {};
  float* sums = nullptr;  // null: not wanted; with `rounded` only
};
Result<> activation_backward(const OpContext& ctx, const ActivationBackward& args);

struct GateForward {
  Activation kind = Activation::gelu;
  ConstMatrix gate;
  ConstMatrix up;
  Matrix y;
};
Result<> gate_forward(const OpContext& ctx, const GateForward& args);

struct GateBackward {
  Activation kind = Activation::gelu;
  ConstMatrix dy;
  ConstMatrix gate;
  ConstMatrix up;
  Matrix dgate;
  Matrix dup;
};
Result<> gate_backward(const OpContext& ctx, const GateBackward& args);

}  // namespace tutti::kernels
