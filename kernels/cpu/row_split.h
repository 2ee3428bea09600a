// How loops over rows are cut for the threads: pieces large enough to hide the hand-out, small
// enough to balance.
#pragma once

#include <algorithm>

#include "kernels/tensor/matrix.h"

namespace tutti::kernels {

inline constexpr Index kElementsInPiece = 16384;

inline Index rows_in_piece(Index columns) {
  return std::max<Index>(1, kElementsInPiece / std::max<Index>(1, columns));
}

template <class A, class B>
bool same_shape(const BasicMatrix<A>& a, const BasicMatrix<B>& b) {
  return a.rows == b.rows && a.columns == b.columns;
}

}  // namespace tutti::kernels
