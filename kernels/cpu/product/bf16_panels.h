// Panels of pairs of bf16, by the instructions of CPUs that have them; the numerics are those of
// product_bf16.h, native and tiles.
//
// Each is a PanelKernel: one k of the call is a pair, one 32-bit unit of an operand.
//
// Threads: any.
#pragma once

#include "kernels/cpu/product/product_call.h"

namespace tutti::kernels {

void run_bf16_panel(LeftOrder order, Index rows, Index columns, const ChainCall& call);

// The pairs of one group of a sum by tiles: the call's depth is a multiple of it.
inline constexpr Index kTileUnits = 16;

// Left by row only; right has kImagePanel columns.
void run_bf16_tiles(LeftOrder order, Index rows, Index columns, const ChainCall& call);

}  // namespace tutti::kernels
