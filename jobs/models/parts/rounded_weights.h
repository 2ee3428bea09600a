// A model's weights as a device's products read them (kernels/ops/elementwise/rounded.h), rounded
// once for all products that read them, until they are others.
//
//   RoundedWeights rounded(layout, device);
//   rounded.round(weights);                                  after each update
//   pass.add_gradients(ctx, {weights, rounded.data()}, ...);
//
// An arena of the layout (parameters.h), of 16 bits each: what no product reads is rounded with the
// rest, so that it is one launch.
//
// Ownership: owns the memory, on the device, which outlives it. Errors: those of rounded.h.
#pragma once

#include <cstdint>
#include <span>

#include "jobs/models/parameters.h"
#include "kernels/tensor/buffer.h"
#include "protocol/base/result.h"

namespace tutti::models {

class RoundedWeights {
 public:
  RoundedWeights(const ParameterLayout& layout, kernels::Device& device)
      : device_(device), memory_(static_cast<kernels::Index>(floats(layout)), &device) {}
  static std::uint64_t bytes(const ParameterLayout& layout) {
    return floats(layout) * sizeof(float);
  }

  Result<> round(std::span<const float> weights);
  const std::uint16_t* data() const {
    return reinterpret_cast<const std::uint16_t*>(memory_.data());
  }

 private:
  static std::uint64_t floats(const ParameterLayout& layout) { return layout.elements() / 2; }

  kernels::Device& device_;
  kernels::FloatBuffer memory_;
};

class Fp8Weights;

// Weights that a pass computes with, the same rounded, and their codes; null: each product rounds
// what it reads, or makes its own. None changes a bit.
struct PassWeights {
  PassWeights(std::span<const float> wide_in,  // NOLINT: weights are weights of a pass
              const std::uint16_t* rounded_in = nullptr, const Fp8Weights* fp8_in = nullptr)
      : wide(wide_in), rounded(rounded_in), fp8(fp8_in) {}
  PassWeights(std::span<float> wide_in,  // NOLINT: likewise
              const std::uint16_t* rounded_in = nullptr, const Fp8Weights* fp8_in = nullptr)
      : wide(wide_in), rounded(rounded_in), fp8(fp8_in) {}

  std::span<const float> wide;   // layout.elements()
  const std::uint16_t* rounded;  // likewise
  const Fp8Weights* fp8;         // of a device in fp8
};

}  // namespace tutti::models
