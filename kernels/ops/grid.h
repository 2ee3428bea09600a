// The grid on which state is cut: each parameter, flattened, in blocks of 65,536 elements (DESIGN
// numerics, one grid).
//
// Norms, hashes and optimizer updates work on these blocks, so that a sharded run and a whole one
// do the same sums.
#pragma once

#include "kernels/tensor/matrix.h"

namespace tutti::kernels {

inline constexpr Index kGridBlock = 65536;

inline constexpr Index grid_blocks(Index elements) {
  return (elements + kGridBlock - 1) / kGridBlock;
}

}  // namespace tutti::kernels
