// Attention on tensor cores, for devices that compute in bf16 (device.h): forward
// (attention_bf16.cu) and backward (gradients_bf16.cu).
//
// Inputs and outputs are those of kernels/ops/attention.h. q, k, v and dout are rounded to bf16
// once, where they are not given so, weights and their slopes too before they meet rows; scores,
// maxima and sums are fp32. Head widths up to kRoundedHeadWidthMax. Errors: exhausted, unavailable.
#pragma once

#include <functional>
#include <memory_resource>

#include "kernels/cuda/runtime.h"
#include "kernels/cuda/tensor_core.h"
#include "kernels/ops/attention.h"

namespace tutti::kernels::cuda {

inline constexpr float kLog2e = 1.44269504088896F;

// What the ops work with: the device's stream, host and scratch bytes for the time of the op, and
// host data that goes up to it.
struct Bf16Attention {
  cudaStream_t stream = nullptr;
  std::pmr::memory_resource* host = nullptr;
  std::function<Result<void*>(std::size_t bytes)> scratch;
  std::function<Result<void*>(const void* from, std::size_t bytes)> stage;
};

// What is given, or `from` rounded into scratch.
Result<ConstRoundedMatrix> rounded_or(const Bf16Attention& where, const ConstRoundedMatrix& given,
                                      const ConstMatrix& from);

struct SampleTile;
// What both directions read.
struct RoundedInputs {
  ConstRoundedMatrix q, k, v;
  const SampleTile* tasks = nullptr;
  unsigned tiles = 0;  // of tasks; 0: no samples, and nothing else is there
};
Result<RoundedInputs> round_inputs(const Bf16Attention& where, const AttentionForward& args);

Result<> attention_forward_bf16(const Bf16Attention& where, const AttentionForward& args);
// On the device: `dout`, rounded, and `delta` [tokens][heads], the sums over it times out.
Result<> attention_backward_bf16(const Bf16Attention& where, const AttentionBackward& args,
                                 const ConstRoundedMatrix& dout, const float* delta);

}  // namespace tutti::kernels::cuda
