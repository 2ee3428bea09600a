// A product of fp32 numbers that are rounded as they are packed (rounding.h).
#pragma once

#include "kernels/ops/product_bf16.h"
#include "kernels/tensor/device.h"

namespace tutti::kernels {

// Whether the path in use has its arithmetic.
bool can_round(const Rounding& rounding);
// Of checked arguments, without an image; the path in use has the arithmetic.
void run_rounded(const OpContext& ctx, ProductForm form, const Product& args,
                 const Rounding& rounding);

}  // namespace tutti::kernels
