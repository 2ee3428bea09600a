// The weights of a decoder as serving reads them, in host memory or a device's: each matrix once,
// as the image that products of few rows stream from memory, in fp32 or fewer bits.
//
//   auto       a folder's own codes (stored/stored_matrix.h) stay codes, and bf16 beside them bf16,
//              with activations in fp32: the bits of fp32 in less memory; where it has none, fp32
//   fp32       the bits of training
//   bf16       matrices rounded to bf16, activations in fp32: half the memory and time of a token
//   int8, q8_0, int4, q4_0, q5_0, q4_k, q5_k, q6_k     codes with scales; activations are rounded
//              to int8 before each product (kernels/ops/weights/quantised_weight.h)
//   nf4, fp8_e4m3, fp8_e5m2      codes of numbers with scales, activations in fp32
//
// Norms, biases and learned positions stay fp32. A token's row of embeddings is looked up in fp32,
// or in bf16 where matrices are not fp32. A token's logits depend on its own sequence only, in
// every format, and are the same on every CPU path and for any number of threads. A device's
// products by formats other than fp32 have the CPU's bits; its norms and attention have their own.
//
// Images of a folder's weights, of its own codes too, are kept in a cache (image_cache.h) under a
// hash of what they are made from (stored/image_key.h): a later start on a CPU with the same
// weights and format maps them.
//
// Ownership: owns everything; the decoder and the device that it was made for must outlive it.
// Threads: immutable once made. Errors: those of the source; invalid_argument (an unknown format; a
// matrix whose rows are no whole blocks of it, or whose values it cannot hold: named); exhausted (a
// device without the memory).
#pragma once

#include <filesystem>
#include <functional>
#include <string_view>
#include <vector>

#include "jobs/models/decoder.h"
#include "jobs/models/image_cache.h"
#include "jobs/models/layer.h"

namespace tutti::models {

// The names above.
std::span<const std::string_view> serving_formats();

class ServingWeights {
 public:
  // Fills the parameter's values.
  using Source = std::function<Result<>(const Parameter& parameter, std::span<float> values)>;

  // One parameter is in host memory as fp32 at a time, besides the images.
  static Result<ServingWeights> make(const kernels::OpContext& ctx, const Decoder& decoder,
                                     std::string_view format, const Source& source);
  static Result<ServingWeights> from(const kernels::OpContext& ctx, const Decoder& decoder,
                                     std::string_view format, std::span<const float> arena);
  static Result<ServingWeights> load(const kernels::OpContext& ctx, const Decoder& decoder,
                                     std::string_view format, const std::filesystem::path& folder,
                                     const ImageCache& cache);

  std::uint64_t bytes() const;
  // What they will take of a device, from shapes alone; where `auto` keeps the codes of `folder`,
  // at most. Errors: invalid_argument (the format); those of the folder's config.json.
  static Result<std::uint64_t> device_bytes(const Decoder& decoder, std::string_view format,
                                            const std::filesystem::path& folder = {});
  // Which weights these are, among all that the process has made.
  std::uint64_t number() const { return number_; }

  // For the pass. Matrices of `layer` have shapes and no data: their images are read.
  const LayerParameters<const float>& parameters(std::uint32_t layer) const {
    return parameters_[layer];
  }
  const LayerImages& images(std::uint32_t layer) const { return images_[layer]; }
  const NormParameters<const float>& final_norm() const { return final_norm_; }
  // Learned positions; without data where the model has none.
  ConstMatrix position_table() const { return positions_; }
  const WeightImage& head() const { return head_; }
  void look_up(const kernels::OpContext& ctx, std::span<const std::int32_t> tokens,
               Matrix out) const;

 private:
  struct Maker;

  std::uint64_t number_ = 0;
  std::vector<LayerParameters<const float>> parameters_;
  std::vector<LayerImages> images_;
  WeightImage head_;
  // Norms, biases and learned positions, one after the other.
  kernels::FloatBuffer plain_;
  NormParameters<const float> final_norm_;
  ConstMatrix positions_;
  // The table of embeddings, in fp32 or bf16: of our own or in the mapping; neither: the head's
  // image is it.
  Index table_rows_ = 0;
  kernels::AlignedBytes own_table_;
  std::span<const std::byte> table_;
  bool wide_table_ = true;
  MappedImages mapped_;
};

}  // namespace tutti::models
