// Panels of pairs of bf16, by the instruction of CPUs that have it; the numerics are those of
// product_bf16.h, native.
//
// A PanelKernel: one k of the call is a pair, one 32-bit unit of an operand.
//
// Threads: any.
#pragma once

#include "kernels/cpu/product/product_call.h"

namespace tutti::kernels {

void run_bf16_panel(Index rows, Index columns, const ChainCall& call);

}  // namespace tutti::kernels
