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

struct TileBlock {
  Index rows = 0;
  Index columns = 0;
  Index groups = 0;
  TileRows left;
  const float* right = nullptr;  // panels of kImagePanel columns
  Index panel_step = 0;          // from one panel to the next
  float* output = nullptr;
  Index output_stride = 0;
  ChainStart start = ChainStart::zero;
};

void run_tile_block(const TileBlock& block);

}  // namespace tutti::kernels
