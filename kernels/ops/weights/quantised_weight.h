// Products with quantised weights: y = x w^T, w kept in one of the formats of weight_format.h.
//
// The weight is laid out once for the registers: groups of sixteen outputs, and in a group, cell by
// cell of 32 inputs, four inputs of each output side by side, with the cell's scales behind them. A
// product of one row reads that image in one stream and is bound by memory.
//
//   x [M, K] f32 or bf16        y [M, N] f32 or bf16        w: N rows (outputs) of K inputs
//
// Two meanings, chosen by the caller:
//
//   Activations::exact  w is dequantised to f32 and each output is the chain of product_nt over
//                       ascending k: the bits of product_nt with dequantised weights, on all paths.
//   Activations::int8   x is rounded to int8 too, by row and cell of 32 (int8_channel: by row):
//                       scale = max |x| / 127, code = nearest(x * (127 / max)), ties to even; a
//                       cell with a NaN or an infinity has scale NaN. Sums of code products are
//                       exact integers; an output is a chain of fused multiply-adds over ascending
//                       cells of (integer sum, as f32) * (weight scale * x scale), a minimum's term
//                       behind its cell's. Integers cost no rounding, so all paths give the same
//                       bits, with VNNI, AVX2 or neither.
//
// Activations in bf16 give the bits of from_bf16 of them. They are widened as they are read, a row
// at a time to be rounded to int8, some rows at a time to begin chains: M rows of fp32 exist
// nowhere.
//
// A GPU gives these bits too, in both meanings: it reads the same image and keeps the same chains.
//
// Row rule as in product.h: a row's bits depend on nothing beside it; threads divide outputs only.
// bf16, nf4, fp8 and formats with zeros have no integer codes here: int8 is refused. Of fp8, a code
// that is no finite number and a scale of 2^119 or more make no image: it is for numbers alone.
// Limits: K up to 131,072 for int8_channel (its sum of int8 products stays within int32).
//
// Ownership: owns the image, on a device in its memory, or views one that lies elsewhere. Threads:
// immutable once made. Errors: invalid_argument; those of the device, and unsupported for bf16 on
// one.
#pragma once

#include <cstddef>
#include <span>

#include "kernels/ops/product.h"
#include "kernels/ops/weights/weight_format.h"
#include "kernels/tensor/buffer.h"

namespace tutti::kernels {

// Of the images' layout, which differs by format and, for none of them, by CPU path.
inline constexpr std::uint32_t kQuantisedImageVersion = 1;

class QuantisedWeight {
 public:
  QuantisedWeight() = default;

  WeightFormat format() const { return format_; }
  Index outputs() const { return outputs_; }
  Index inputs() const { return inputs_; }
  const std::byte* image() const { return elsewhere_ != nullptr ? elsewhere_ : image_.data(); }
  std::size_t bytes() const {
    return elsewhere_ != nullptr ? image_bytes(format_, outputs_, inputs_) : image_.size();
  }
  // Of the image of such a weight, before it is made.
  static std::size_t image_bytes(WeightFormat format, Index outputs, Index inputs);

  // An image of that many bytes that was made before (a mapped file's), 64-byte aligned; it
  // outlives what views it.
  static QuantisedWeight view(WeightFormat format, Index outputs, Index inputs,
                              const std::byte* image);

 private:
  friend Result<QuantisedWeight> pack_rows(const OpContext& ctx, WeightFormat format,
                                           std::span<const std::byte> rows, Index outputs);
  WeightFormat format_ = WeightFormat::q8_0;
  Index outputs_ = 0;
  Index inputs_ = 0;
  AlignedBytes image_;
  const std::byte* elsewhere_ = nullptr;
};

// `rows` are `outputs` rows in the format, one after the other, as a GGUF file holds them; host
// memory, as is `weight` below. The image is laid out by the pool, then goes to the device.
Result<QuantisedWeight> pack_rows(const OpContext& ctx, WeightFormat format,
                                  std::span<const std::byte> rows, Index outputs);
// Quantises first. A weight that is not finite, or not after rounding, is refused.
Result<QuantisedWeight> quantise_weight(const OpContext& ctx, WeightFormat format,
                                        ConstMatrix weight);

enum class Activations { exact, int8 };

struct QuantisedProduct {
  ConstMatrix left;
  const QuantisedWeight* right = nullptr;
  Matrix output;
  Activations activations = Activations::int8;
  ChainStart start = ChainStart::zero;
  const float* bias = nullptr;                // [outputs], added once to the finished chain
  ConstMatrix residual = {};                  // shape of output, added after the bias
  std::optional<Activation> activation = {};  // the further ends of product.h
  ConstMatrix gate = {};
  BasicMatrix<Bf16> narrow = {};
  BasicMatrix<const Bf16> narrow_left = {};  // in place of `left`, which is empty then
};
Result<> product_quantised(const OpContext& ctx, const QuantisedProduct& args);

}  // namespace tutti::kernels
