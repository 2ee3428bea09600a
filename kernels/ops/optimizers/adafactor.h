// One Adafactor step (Shazeer & Stern 2018) over a whole parameter: a matrix with a second moment
// factored into rows and columns, or a vector with a plain one.
//
//   g       = gradient * factor
//   matrix:   row_i    = beta2 * row_i + (1 - beta2) * mean_j(g_ij^2 + epsilon)
//             column_j = beta2 * column_j + (1 - beta2) * mean_i(g_ij^2 + epsilon)
//             u_ij     = g_ij / sqrt(row_i * column_j / mean(row))
//   vector:   second_j = beta2 * second_j + (1 - beta2) * (g_j^2 + epsilon)
//             u_j      = g_j / sqrt(second_j)
//   u       = u / max(1, rms(u) / clip)
//   weight  = weight * (1 - rate * decay) - rate * u
//
// The caller gives beta2 = 1 - t^-0.8. Relative steps (size_min above 0) have
// rate * max(size_min, rms(weight)) in place of the rate; the paper's size_min is 1e-3.
// Sums over a row use 16 logical lanes and a fixed tree; those over a column are chains over rows;
// means and rms of rows are added in row order in double precision. On a GPU all sums are those of
// tiles of 64 rows and 128 columns, added in their order; what it works in there is less than a
// 32nd of the matrix and three numbers a row and column. Unit: matrix. A vector is a matrix of one
// row whose row state is empty. Errors: invalid_argument; nothing is written then.
#pragma once

#include <span>

#include "kernels/ops/weight_hash.h"

namespace tutti::kernels {

struct AdafactorSettings {
  double rate = 1e-3;
  double size_min = 0.0;
  double beta2 = 0.999;
  double epsilon = 1e-30;
  double clip = 1.0;
  double decay = 0.0;
  float factor = 1.0F;
};

struct AdafactorUpdate {
  AdafactorSettings settings;
  Matrix weight;  // contiguous
  ConstMatrix gradient;
  std::span<float> row;            // [rows]; empty: a vector
  std::span<float> column;         // [columns]
  std::span<Hash128> hashes = {};  // of the grid blocks of the updated weights; empty: not wanted
};
Result<> adafactor_update(const OpContext& ctx, const AdafactorUpdate& args);

}  // namespace tutti::kernels
