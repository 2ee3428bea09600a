// A product of fp32 numbers that are rounded to bf16 as they are packed (rounding.h).
#pragma once

#include "kernels/ops/product_bf16.h"
#include "kernels/tensor/device.h"

namespace tutti::kernels {

// Of checked arguments, without an image; the path in use has the arithmetic.
void run_rounded(const OpContext& ctx, ProductForm form, const Product& args,
                 Bf16Arithmetic arithmetic);

}  // namespace tutti::kernels
