// Attention on tensor cores, for devices that compute in bf16 (device.h): forward
// (attention_bf16.cu) and backward (gradients_bf16.cu).
//
// Inputs and outputs are those of kernels/ops/attention.h, fp32 in memory. q, k, v and dout are
// rounded to bf16 once, weights and their slopes too before they meet rows; scores, maxima and sums
// are fp32. Head widths up to kBf16WidthMax. Errors: exhausted, unavailable.
#pragma once

#include <functional>
#include <memory_resource>

#include "kernels/cuda/runtime.h"
#include "kernels/cuda/tensor_core.h"
#include "kernels/ops/attention.h"

namespace tutti::kernels::cuda {

inline constexpr Index kBf16WidthMax = 128;
inline constexpr float kLog2e = 1.44269504088896F;

// What the ops work with: the device's stream, host and scratch bytes for the time of the op, and
// host data that goes up to it.
struct Bf16Attention {
  cudaStream_t stream = nullptr;
  std::pmr::memory_resource* host = nullptr;
  std::function<Result<void*>(std::size_t bytes)> scratch;
  std::function<Result<void*>(const void* from, std::size_t bytes)> stage;
};

// Heads of one width; a row of each is padded with zeros to what tiles are made for.
struct PaddedHeads {
  Index count = 0;
  Index width = 0;
  Index padded() const { return width <= 64 ? 64 : 128; }
};
// [rows][count][padded], in scratch.
Result<Bf16*> round_heads(const Bf16Attention& where, const ConstMatrix& from,
                          const PaddedHeads& heads);

struct SampleTile;
// What both directions read, in scratch.
struct RoundedInputs {
  const Bf16 *q = nullptr, *k = nullptr, *v = nullptr;
  const SampleTile* tasks = nullptr;
  unsigned tiles = 0;  // of tasks; 0: no samples, and nothing else is there
};
Result<RoundedInputs> round_inputs(const Bf16Attention& where, const AttentionForward& args);

Result<> attention_forward_bf16(const Bf16Attention& where, const AttentionForward& args);
// `delta` [tokens][heads], on the device: the sums over rounded dout times out.
Result<> attention_backward_bf16(const Bf16Attention& where, const AttentionBackward& args,
                                 const float* delta);

}  // namespace tutti::kernels::cuda
