// Sums of squares of a gradient, block by block of the grid, in double precision and a fixed order.
//
//   values   [n]                begins on the grid
//   sums     [grid_blocks(n)]   written; 16 logical lanes over the block, then a fixed tree
//
// The norm of all gradients is the square root of ordered_sum over the block sums of all parameters
// in name order. An infinity or NaN in a block makes its sum non-finite, which names the tensor.
// Errors: invalid_argument.
#pragma once

#include <span>

#include "kernels/ops/grid.h"
#include "kernels/tensor/op_context.h"
#include "protocol/base/result.h"

namespace tutti::kernels {

// The arguments, as a device takes them.
struct SquareSums {
  std::span<const float> values;
  std::span<double> sums;
};

Result<> square_sums(const OpContext& ctx, std::span<const float> values, std::span<double> sums);

// sums[0] + sums[1] + ... from the left.
inline double ordered_sum(std::span<const double> sums) {
  double total = 0.0;
  for (const double sum : sums) total += sum;
  return total;
}

}  // namespace tutti::kernels
