// One Muon step (Jordan et al. 2024) over a whole matrix: momentum, made nearly orthogonal.
//
//   g        = gradient * factor
//   velocity = momentum * velocity + g
//   u        = g + momentum * velocity                                 Nesterov's form
//   X        = u / (|u| + 1e-7)                                        Frobenius norm
//   5 times: A = X X^T;  B = b A + c A A;  X = a X + B X    a, b, c: 3.4445, -4.775, 2.0315
//   weight   = weight * (1 - rate * decay) - rate * sqrt(max(1, rows / columns)) * X
//
// A matrix with more rows than columns is turned for the iterations. In fp32, products as
// product.h (on a GPU that computes in bf16, their inputs are rounded); the norm is the sum of the
// grid blocks' squares in double precision.
// Workspace: two matrices of the weight's size and two of its shorter side squared, from the pool
// or of the device. Unit: matrix. Embeddings, heads and vectors are left to AdamW.
// Errors: invalid_argument; nothing is written then.
#pragma once

#include <span>

#include "kernels/ops/weight_hash.h"

namespace tutti::kernels {

struct MuonSettings {
  double rate = 2e-2;
  double momentum = 0.95;
  double decay = 0.0;
  int iterations = 5;
  float factor = 1.0F;
};

struct MuonUpdate {
  MuonSettings settings;
  Matrix weight;  // contiguous
  ConstMatrix gradient;
  Matrix velocity;
  std::span<Hash128> hashes = {};
};
Result<> muon_update(const OpContext& ctx, const MuonUpdate& args);

}  // namespace tutti::kernels
