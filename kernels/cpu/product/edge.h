// A panel whose outputs end within a vector, for register tiles that write whole vectors only.
#pragma once

#include <algorithm>
#include <cstring>

#include "kernels/ops/product.h"

namespace tutti::kernels {

// Takes kRows rows at a time through a tile of memory of our own, of kColumns columns: of each row
// the first `columns` floats exist outside. run(first, height, part) computes rows first ..
// first + height; of `part`, which is `call` with its output in the tile, it sets what else belongs
// to those rows.
template <Index kRows, Index kColumns, class Call, class Run>
void run_through_tile(Index rows, Index columns, const Call& call, Run run) {
  alignas(64) float tile[kRows * kColumns] = {};
  const auto bytes = static_cast<std::size_t>(columns) * sizeof(float);
  for (Index first = 0; first < rows; first += kRows) {
    const Index height = std::min<Index>(kRows, rows - first);
    float* const place = call.output + first * call.output_stride;
    if (call.start == ChainStart::output) {
      for (Index r = 0; r < height; ++r) {
        std::memcpy(tile + r * kColumns, place + r * call.output_stride, bytes);
      }
    }
    Call part = call;
    part.output = tile;
    part.output_stride = kColumns;
    run(first, height, part);
    for (Index r = 0; r < height; ++r) {
      std::memcpy(place + r * call.output_stride, tile + r * kColumns, bytes);
    }
  }
}

}  // namespace tutti::kernels
