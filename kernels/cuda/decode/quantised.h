// y = x w^T for few rows and a weight kept in 8 or 4 bits: decoding, where the weight's bytes are
// the time.
//
//   x        [M, K]        fp32, M <= kQuantisedRowsMax
//   int8:    codes [N, K] signed bytes, scales [N, K / kQuantGroup]
//   4 bits:  codes [N, K / 2], two numbers a byte, the lower index in the lower half, each 0..15
//   for -8..7; scales likewise y        [M, N]        fp32, written
//
// w[n, k] = scale[n, k / 128] * code. Each output is a sum of groups: within one, a chain over the
// lane's numbers, folded over the warp, times the scale; groups are added in ascending order. So a
// row's bits depend on that row and the weight only. Errors: invalid_argument.
#pragma once

#include <cstdint>

#include "kernels/cuda/runtime.h"
#include "kernels/tensor/matrix.h"

namespace tutti::kernels::cuda {

inline constexpr Index kQuantGroup = 128;
inline constexpr Index kQuantisedRowsMax = 16;

struct QuantisedProduct {
  enum class Bits { eight, four };
  Bits bits = Bits::eight;
  ConstMatrix x;
  const std::uint8_t* codes = nullptr;
  const float* scales = nullptr;
  Matrix y;
};
Result<> quantised_product(cudaStream_t stream, const QuantisedProduct& args);

}  // namespace tutti::kernels::cuda
