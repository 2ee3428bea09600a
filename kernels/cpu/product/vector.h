// y = x w^T for one to four rows of x: decoding, where reading the weight once is all that counts.
#pragma once

#include "kernels/ops/product.h"

namespace tutti::kernels {

inline constexpr Index kVectorRows = 4;

// Outputs [first, first + count) of every row; args.left.rows is 1 .. kVectorRows and its columns
// are not 0. The chain of each output is that of product_nt; bias and residual are left to the
// caller.
void product_vector(const Product& args, Index first, Index count);

}  // namespace tutti::kernels
