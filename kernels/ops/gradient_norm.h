// Sums of squares of a gradient, block by block of the grid, in double precision and a fixed order.
//
//   values   [n]                begins on the grid
//   sums     [grid_blocks(n)]   written; 16 logical lanes over the block, then a fixed tree
//
// The norm of all gradients is the square root of ordered_sum over the block sums of all parameters
// in name order. An infinity or NaN in a block makes its sum non-finite, which names the tensor.
// Errors: invalid_argument.
//
// The norm has to be known before a step (it clips, and a step without a finite one is none), so it
// cannot be summed in the optimizer's pass: it is summed where gradients are written last, in the
// tree's last additions (add_pieces).
#pragma once

#include <span>

#include "kernels/ops/add.h"
#include "kernels/ops/grid.h"
#include "kernels/tensor/op_context.h"
#include "protocol/base/result.h"

namespace tutti::kernels {

// The arguments, as a device takes them.
struct SquareRange {
  std::span<const float> values;
  std::span<double> sums;
};
struct SquareSums {
  std::span<const SquareRange> ranges;
};

// Of all ranges, as if one after the other; nothing is written on error.
Result<> square_sums(const OpContext& ctx, const SquareSums& args);
inline Result<> square_sums(const OpContext& ctx, std::span<const float> values,
                            std::span<double> sums) {
  const SquareRange range{values, sums};
  return square_sums(ctx, SquareSums{.ranges = {&range, 1}});
}

// sum = the root of the tree of `additions` over `pieces` (add.h: PieceSum), and in the same pass
// the sums of its squares, bit by bit those of square_sums.
//
//   pieces   each [count]        used up; `sum` is pieces[0], or a place of its own
//   blocks   ascending, within count; together with what lies between them they are summed
//   squares  one for each block, written; both empty: not wanted
//
// On the host; a device's pieces are summed by its PieceSum. Errors: invalid_argument.
struct AddPieces {
  struct Block {
    Index begin = 0;
    Index elements = 0;
  };

  std::span<float* const> pieces;
  std::span<const PieceSum::Addition> additions;
  Index count = 0;
  float* sum = nullptr;
  std::span<const Block> blocks = {};
  std::span<double> squares = {};
};
Result<> add_pieces(const OpContext& ctx, const AddPieces& args);

// sums[0] + sums[1] + ... from the left.
inline double ordered_sum(std::span<const double> sums) {
  double total = 0.0;
  for (const double sum : sums) total += sum;
  return total;
}

}  // namespace tutti::kernels
