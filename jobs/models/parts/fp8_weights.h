// The weights of a model's linear layers as products in fp8 read them, forward by one side and
// backward by the other (kernels/ops/elementwise/fp8_rows.h): made once for all products that read
// them, until they are others.
//
//   Fp8Weights codes(decoder, device);
//   codes.make(weights);                                     after each update
//   pass.add_gradients(ctx, {weights, rounded, &codes}, ...);
//
// Of each of seven linear layers the rows' codes and scales, then the columns'; of none whose shape
// has none. Parts of a fused matrix are layers of their own.
//
// Ownership: owns the memory, on the device, which outlives it; keeps a reference to the decoder.
// Errors: those of Device::make_fp8.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "jobs/models/decoder.h"
#include "jobs/models/layer.h"
#include "kernels/tensor/buffer.h"
#include "protocol/base/result.h"

namespace tutti::models {

class Fp8Weights {
 public:
  Fp8Weights(const Decoder& decoder, kernels::Device& device);
  static std::uint64_t bytes(const Decoder& decoder);

  Result<> make(std::span<const float> weights);
  // Into the linear layers of `layer`.
  void give(std::uint32_t layer, LayerParameters<const float>& parameters) const;
  const float* data() const { return memory_.data(); }

 private:
  static constexpr std::size_t kLinears = 7;

  // Of one linear layer, in floats from the beginning of its layer; no rows: it has no codes.
  struct Place {
    kernels::Index rows = 0, columns = 0;
    kernels::Index codes = 0, scales = 0, turned_codes = 0, turned_scales = 0;
  };
  struct Places {
    explicit Places(const Decoder& decoder);
    std::array<Place, kLinears> linears;
    kernels::Index floats = 0;  // of a layer
  };

  kernels::Fp8Weight at(std::uint32_t layer, const Place& place) const;

  const Decoder& decoder_;
  kernels::Device& device_;
  const Places places_;
  kernels::FloatBuffer memory_;
};

}  // namespace tutti::models
