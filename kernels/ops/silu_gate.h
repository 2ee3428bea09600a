// y = silu(gate) * up (Shazeer 2020, SwiGLU), with its gradient; silu(g) = g / (1 + exp(-g)).
//
//   gate, up, y     [rows, F]   y may be gate or up
//   dgate, dup      [rows, F]   written; dgate may be gate or dy, dup may be up or dy
//   rounded         [rows, F]   of y, of dgate and dup: beside them or in their place (rounded.h);
//                               overlap no input
//
//   s = 1 / (1 + exp(-g));  dup = dy * (g * s);  dgate = dy * up * (s * (1 + g * (1 - s)))
//
// exp is ours (relative error below 2^-22), division exact. Errors: invalid_argument; those of
// rounded.h; nothing is written then.
#pragma once

#include "kernels/ops/elementwise/rounded.h"
#include "kernels/tensor/matrix.h"
#include "kernels/tensor/op_context.h"
#include "protocol/base/result.h"

namespace tutti::kernels {

struct SiluGateForward {
  ConstMatrix gate;
  ConstMatrix up;
  Matrix y;
  RoundedMatrix rounded = {};
};
Result<> silu_gate_forward(const OpContext& ctx, const SiluGateForward& args);

struct SiluGateBackward {
  ConstMatrix dy;
  ConstMatrix gate;
  ConstMatrix up;
  Matrix dgate;
  Matrix dup;
  RoundedMatrix dgate_rounded = {};
  RoundedMatrix dup_rounded = {};
};
Result<> silu_gate_backward(const OpContext& ctx, const SiluGateBackward& args);

}  // namespace tutti::kernels
