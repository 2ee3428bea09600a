// What log_softmax takes from each logit of a row, for who wants few of them.
#pragma once

#include "kernels/tensor/matrix.h"

namespace tutti::kernels {

// The logarithm of the sum of exp(x), in double precision, of the chosen path's sums.
double row_log_sum(const float* x, Index width);

}  // namespace tutti::kernels
