// A bf16 weight of a linear layer laid out once for product_bf16_nt (product_bf16.h, `packed`),
// which else widens or pairs it, and packs it, at each call.
//
//   widened  [outputs / 64][inputs][64]      bf16, widened in registers: half the bytes of fp32
//   native   [outputs / 64][inputs / 2][64]  pairs of bf16, the even input in the lower half
//   tiles    the same
//
// Zeros fill what is not whole: panels of 64 outputs, pairs, and groups of 32 inputs (not native);
// 64 bytes of them end a widened image. The same for any number of threads, on every path that has
// the arithmetic.
//
// The same chains, the same bits. An image is a cache: stale once the weight changes, of this build
// only.
//
// Ownership: owns the image. Threads: immutable once made. Errors: invalid_argument; unsupported on
// a device, and native where the path in use has none.
#pragma once

#include "kernels/ops/product_bf16.h"
#include "kernels/ops/weights/packed_weight.h"
#include "kernels/ops/weights/quantised_weight.h"

namespace tutti::kernels {

class PackedBf16Weight {
 public:
  PackedBf16Weight() = default;

  Bf16Arithmetic arithmetic() const { return arithmetic_; }
  Index outputs() const { return outputs_; }
  Index inputs() const { return inputs_; }
  // For the products: the one of its arithmetic.
  const QuantisedWeight& widened() const { return widened_; }
  const PackedWeight& pairs() const { return pairs_; }

 private:
  friend Result<PackedBf16Weight> pack_bf16_weight(const OpContext& ctx, const Bf16Matrix& weight,
                                                   Bf16Arithmetic arithmetic);
  Bf16Arithmetic arithmetic_ = Bf16Arithmetic::widened;
  Index outputs_ = 0;
  Index inputs_ = 0;
  QuantisedWeight widened_;
  PackedWeight pairs_;
};

// weight [outputs, inputs].
Result<PackedBf16Weight> pack_bf16_weight(const OpContext& ctx, const Bf16Matrix& weight,
                                          Bf16Arithmetic arithmetic);

}  // namespace tutti::kernels
