// The weight of a linear layer turned once into the layout that products of few rows read at the
// speed of memory.
//
// A weight lies output by output, k side by side; a chain per output wants sixteen outputs side by
// side for each k. Turning it in registers costs a decoding step more than the multiply-adds, so it
// is done once:
//
//   image  [outputs / 64][inputs][64]   f32, zeros where outputs end
//
// product_nt reads it in place of `right` (product.h, `packed`), with the same chains: the same
// bits. An image is a cache: stale once the weight changes.
//
// A device's products read rows as they lie: its image is the weight itself, in its memory.
//
// Ownership: owns the image, or views one that lies elsewhere. Threads: immutable once made.
// Errors: invalid_argument; those of the device.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/tensor/buffer.h"
#include "kernels/tensor/op_context.h"
#include "protocol/base/result.h"

namespace tutti::kernels {

// Of the image's layout, the same on every CPU path.
inline constexpr std::uint32_t kPackedImageVersion = 1;

class PackedWeight {
 public:
  PackedWeight() = default;

  Index outputs() const { return outputs_; }
  Index inputs() const { return inputs_; }
  const float* image() const { return elsewhere_ != nullptr ? elsewhere_ : image_.data(); }
  std::uint64_t bytes() const {
    return elsewhere_ != nullptr ? image_bytes(outputs_, inputs_)
                                 : static_cast<std::uint64_t>(image_.size()) * sizeof(float);
  }
  // Of the image of such a weight in host memory, before it is made.
  static std::size_t image_bytes(Index outputs, Index inputs);

  // An image of that many bytes that was made before (a mapped file's), 64-byte aligned; it
  // outlives what views it.
  static PackedWeight view(Index outputs, Index inputs, const std::byte* image);

 private:
  friend Result<PackedWeight> pack_weight(const OpContext& ctx, ConstMatrix weight);
  FloatBuffer image_;
  const float* elsewhere_ = nullptr;
  Index outputs_ = 0;
  Index inputs_ = 0;
};

// weight [outputs, inputs], host memory.
Result<PackedWeight> pack_weight(const OpContext& ctx, ConstMatrix weight);

}  // namespace tutti::kernels
