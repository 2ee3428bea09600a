// Products by tiles (product_bf16.h): who packs what, and in which order blocks are met.
#pragma once

#include "kernels/cpu/product/tiles/pack.h"

namespace tutti::kernels {

// `image`: of the right operand, null where there is none; of `ends` the operands are not read.
// The depth is above zero, and so are rows and columns.
void product_by_tiles(const Workers& workers, const TileOperand<Bf16>& left,
                      const TileOperand<Bf16>& right, const float* image, const Product& ends);
void product_by_tiles(const Workers& workers, const TileOperand<float>& left,
                      const TileOperand<float>& right, const float* image, const Product& ends);

}  // namespace tutti::kernels
