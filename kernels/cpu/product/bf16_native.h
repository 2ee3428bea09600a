// Panels of pairs of bf16 on machines with AVX512-BF16 (path avx512bf16); the numerics are those of
// product_bf16.h, native.
#pragma once

#include "kernels/cpu/product/product_call.h"

namespace tutti::kernels {

// A PanelKernel: one k of the call is a pair, one 32-bit unit of an operand.
void run_bf16_panel(LeftOrder order, Index rows, Index columns, const ChainCall& call);

}  // namespace tutti::kernels
