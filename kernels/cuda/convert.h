// Rounding fp32 numbers to bf16 and fp16 on the device; and whether this build's code runs there at
// all.
//
// Errors: of rounding none of its own; what a launch meets shows at the op's end.
#pragma once

#include <span>

#include "kernels/cuda/runtime.h"
#include "kernels/cuda/tensor_core.h"
#include "kernels/ops/elementwise/rounded.h"
#include "kernels/tensor/matrix.h"

namespace tutti::kernels::cuda {

// Errors: unsupported (this build has no code for the GPU in use, or code that its driver cannot
// translate). Asked when a device is opened: of a launch, only a later call would tell.
Result<> check_code();

// Rows of rounded operands of products begin at multiples of 16 bytes.
inline Index rounded_stride(Index columns) {
  return (columns + kRoundedUnit - 1) / kRoundedUnit * kRoundedUnit;
}

// to[r * stride + c], to the nearest; columns behind from.columns are zeros.
Result<> round_rows(cudaStream_t stream, const ConstMatrix& from, std::uint16_t* to, Index stride,
                    Narrow narrow = Narrow::bf16);

// Which draws a tensor's rounding takes: a range of it gets the tensor's.
struct StochasticKey {
  unsigned long long seed = 0;
  unsigned long long purpose = 0;
  unsigned long long first_index = 0;
};
// Stochastic rounding (Croci et al. 2022): up or down, so that the mean is the value.
Result<> round_stochastic(cudaStream_t stream, std::span<const float> from, Bf16* to,
                          const StochasticKey& key);

}  // namespace tutti::kernels::cuda
