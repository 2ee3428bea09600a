// Attention forward on tensor cores, for devices that compute in bf16 (device.h).
//
// Inputs and outputs are those of attention_forward (kernels/ops/attention.h), fp32 in memory; q,
// k, v are rounded to bf16 once, weights too before they meet the values; scores, maxima and sums
// are fp32. Head widths up to kBf16WidthMax. Errors: exhausted, unavailable.
#pragma once

#include <functional>

#include "kernels/cuda/runtime.h"
#include "kernels/ops/attention.h"

namespace tutti::kernels::cuda {

inline constexpr Index kBf16WidthMax = 128;

// What the op works with: the device's stream, scratch bytes and upload.
struct Bf16Attention {
  cudaStream_t stream = nullptr;
  std::function<Result<void*>(std::size_t bytes)> scratch;
  std::function<Result<>(void* to, const void* from, std::size_t bytes)> upload;
};
Result<> attention_forward_bf16(const Bf16Attention& where, const AttentionForward& args);

}  // namespace tutti::kernels::cuda
