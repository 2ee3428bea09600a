// The plain meaning of norms, activations and softmax, in double precision.
#pragma once

#include "kernels/ops/elementwise/activation.h"
#include "kernels/ops/reference/reference.h"

namespace tutti::kernels::reference {

// Row by row; `bias` may be empty.
struct LayerNorm {
  std::span<const double> weight;
  std::span<const double> bias;
  double epsilon = 1e-5;
};
Table layer_norm(const Table& x, const LayerNorm& norm);

double activation(Activation kind, double x);
Table activation(Activation kind, const Table& x);
Table gate(Activation kind, const Table& gate, const Table& up);

Table softmax(const Table& x);

}  // namespace tutti::kernels::reference
