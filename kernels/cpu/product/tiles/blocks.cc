#include "kernels/cpu/product/tiles/blocks.h"

// Two tiles of rows by two of columns: each of the four sums meets two loads for every two
// products. Compiled for AMX and called only where the machine has it and the system lets this
// process use it.
#include <immintrin.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "kernels/cpu/quant/dots/amx_tiles.h"

namespace tutti::kernels {

namespace {

constexpr Index kSide = kTileSide;
constexpr Index kPair = 2 * kSide;
constexpr Index kUnitBytes = 4;

// Registers 0, 1 are the sums of the upper tile, 2, 3 of the lower; 4, 5 the left tiles, 6, 7 the
// right ones.
constexpr TileConfig kShapes{.row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
                             .rows = {16, 16, 16, 16, 16, 16, 16, 16}};

// Outputs of one tile of registers, and the next ones as far as there are any.
struct Place {
  float* output = nullptr;
  Index stride = 0;  // floats
  ConstMatrix next;
};
// Rows of them that one group asks for at most: a first cache has some sixteen requests on their
// way, and each row is two.
constexpr Index kRowsAsked = 8;

template <bool kLower, bool kBeside>
inline void run_tile(const TileBlock& block, const std::byte* left, const std::byte* right,
                     const Place& place) {
  const TileRows& rows = block.left;
  const auto left_bytes = static_cast<std::size_t>(rows.row_bytes);
  const auto output_bytes = static_cast<std::size_t>(place.stride * kUnitBytes);
  float* const output = place.output;
  float* const below = output + kSide * place.stride;
  settle();
  if (block.start == ChainStart::zero) {
    _tile_zero(0);
    if constexpr (kBeside) _tile_zero(1);
    if constexpr (kLower) _tile_zero(2);
    if constexpr (kLower && kBeside) _tile_zero(3);
  } else {
    _tile_loadd(0, output, output_bytes);
    if constexpr (kBeside) _tile_loadd(1, output + kSide, output_bytes);
    if constexpr (kLower) _tile_loadd(2, below, output_bytes);
    if constexpr (kLower && kBeside) _tile_loadd(3, below + kSide, output_bytes);
  }
  // The next outputs are asked for while the sums of these go on.
  const ConstMatrix& next = place.next;
  const Index rows_each = std::min((kPair + block.groups - 1) / block.groups, kRowsAsked);
  Index asked = 0;
  const TileColumns& columns = block.right;
  const auto right_bytes = static_cast<std::size_t>(columns.row_bytes);
  for (Index g = 0; g < block.groups; ++g) {
    for (Index i = 0; i < rows_each && asked < next.rows; ++i, ++asked) {
      const float* const row_asked = next.row(asked);
      _mm_prefetch(reinterpret_cast<const char*>(row_asked), _MM_HINT_ET0);
      if (next.columns > kSide) {
        _mm_prefetch(reinterpret_cast<const char*>(row_asked + kSide), _MM_HINT_ET0);
      }
    }
    _tile_loadd(6, right, right_bytes);
    _tile_loadd(4, left, left_bytes);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kBeside) {
      _tile_loadd(7, right + columns.tile_bytes, right_bytes);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (kLower) {
      _tile_loadd(5, left + rows.tile_bytes, left_bytes);
      _tile_dpbf16ps(2, 5, 6);
      if constexpr (kBeside) _tile_dpbf16ps(3, 5, 7);
    }
    left += rows.group_bytes;
    right += columns.group_bytes;
  }
  _tile_stored(0, output, output_bytes);
  if constexpr (kBeside) _tile_stored(1, output + kSide, output_bytes);
  if constexpr (kLower) _tile_stored(2, below, output_bytes);
  if constexpr (kLower && kBeside) _tile_stored(3, below + kSide, output_bytes);
  settle();
}

// Outputs that are no whole tiles go through memory of our own.
template <bool kLower, bool kBeside>
void run_edge(const TileBlock& block, const std::byte* left, const std::byte* right,
              const Matrix& output) {
  alignas(64) float sums[kPair * kPair];
  const auto bytes = static_cast<std::size_t>(output.columns) * sizeof(float);
  for (Index r = 0; block.start == ChainStart::output && r < output.rows; ++r) {
    std::memcpy(sums + r * kPair, output.row(r), bytes);
  }
  run_tile<kLower, kBeside>(block, left, right, {sums, kPair, {}});
  for (Index r = 0; r < output.rows; ++r) std::memcpy(output.row(r), sums + r * kPair, bytes);
}

// Those behind the outputs at row and column: beside them, or the first ones of the rows below.
ConstMatrix next_outputs(const TileBlock& block, Index row, Index column) {
  column += kPair;
  if (column >= block.columns) {
    column = 0;
    row += kPair;
  }
  if (row >= block.rows) return {};
  return {block.output + row * block.output_stride + column, std::min(kPair, block.rows - row),
          std::min(kPair, block.columns - column), block.output_stride};
}

// Up to 32 rows by all columns of the block.
template <bool kLower>
void run_rows(const TileBlock& block, Index row) {
  const Index rows = std::min(kPair, block.rows - row);
  const bool whole_rows = rows == (kLower ? kPair : kSide);
  const std::byte* const left = block.left.data + row / kSide * block.left.tile_bytes;
  for (Index column = 0; column < block.columns; column += kPair) {
    const std::byte* const right = block.right.data +
                                   column / kImagePanel * block.right.panel_bytes +
                                   column % kImagePanel / kPair * block.right.pair_bytes;
    float* const output = block.output + row * block.output_stride + column;
    const Index columns = std::min(kPair, block.columns - column);
    const bool beside = columns > kSide;
    if (whole_rows && columns == kPair) {
      const ConstMatrix next = next_outputs(block, row, column);
      run_tile<kLower, true>(block, left, right, {output, block.output_stride, next});
    } else if (whole_rows && columns == kSide) {
      run_tile<kLower, false>(block, left, right, {output, block.output_stride, {}});
    } else if (beside) {
      run_edge<kLower, true>(block, left, right, {output, rows, columns, block.output_stride});
    } else {
      run_edge<kLower, false>(block, left, right, {output, rows, columns, block.output_stride});
    }
  }
}

}  // namespace

// Two tiles of left rows meet all columns, which stay in the second cache.
void run_tile_block(const TileBlock& block) {
  settle();
  _tile_loadconfig(&kShapes);
  for (Index row = 0; row < block.rows; row += kPair) {
    if (block.rows - row > kSide) {
      run_rows<true>(block, row);
    } else {
      run_rows<false>(block, row);
    }
  }
  _tile_release();
}

}  // namespace tutti::kernels
