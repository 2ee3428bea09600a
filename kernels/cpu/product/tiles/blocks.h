// Blocks of sums by the tiles of AMX-BF16; the numerics are those of product_bf16.h, tiles.
//
// Operands are as pack.h lays them down; of the left one rows may lie anywhere.
//
// Threads: any. For machines with AMX that let this process use it (has_amx_bf16).
#pragma once

#include "kernels/cpu/product/product_call.h"

namespace tutti::kernels {

// The pairs of one group of a sum: units of 32 bits.
inline constexpr Index kTileUnits = 16;
inline constexpr Index kTileSide = 16;  // rows of a tile, and its columns as fp32
inline constexpr Index kTileBytes = 1024;

// Whole tiles of rows.
struct TileRows {
  const std::byte* data = nullptr;
  Index row_bytes = 0;    // from a row to the next
  Index group_bytes = 0;  // from sixteen units of it to the next
  Index tile_bytes = 0;   // from sixteen rows to the next
};

// Tiles of columns, two of them side by side.
struct TileColumns {
  const std::byte* data = nullptr;
  Index row_bytes = 0;    // from a unit to the next
  Index group_bytes = 0;  // from sixteen units to the next
  Index tile_bytes = 0;   // from sixteen columns to those beside them
  Index pair_bytes = 0;   // from a panel's first 32 columns to the others
  Index panel_bytes = 0;  // from one panel of kImagePanel columns to the next
};

struct TileBlock {
  Index rows = 0;
  Index columns = 0;
  Index groups = 0;
  TileRows left;
  TileColumns right;
  float* output = nullptr;
  Index output_stride = 0;
  ChainStart start = ChainStart::zero;
};

void run_tile_block(const TileBlock& block);

}  // namespace tutti::kernels
