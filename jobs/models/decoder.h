// A decoder: its description, the layout of its parameters, and how fresh weights are drawn.
//
// Weights are not owned here: training holds them in its state, serving in a loaded model, and both
// hand the arena to a pass. Passes (training_pass.h, inference_pass.h) own the memory of
// activations and run the layers.
//
//   auto decoder = Decoder::create(description);
//   kernels::FloatBuffer weights(decoder->layout().elements());
//   decoder->initialise(ctx, seed, weights.span());
//
// Threads: immutable once made; any thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>

#include "jobs/models/description.h"
#include "jobs/models/parameters.h"
#include "kernels/tensor/buffer.h"
#include "protocol/base/result.h"

namespace tutti::kernels {
struct OpContext;
}

namespace tutti::models {

class Decoder {
 public:
  // Errors: those of check().
  static Result<Decoder> create(const DecoderDescription& description);

  const DecoderDescription& description() const { return description_; }
  const ParameterLayout& layout() const { return layout_; }

  // Fresh weights: norms are one, biases zero; matrices are normal with the description's
  // deviation, and those that write to the residual stream (attention output, feed-forward down)
  // with 1/sqrt(2 * layers) of it (Radford et al. 2019). Each element is a function of (seed,
  // parameter name, logical index) and of nothing else.
  void initialise(const kernels::OpContext& ctx, std::uint64_t seed,
                  std::span<float> weights) const;

 private:
  explicit Decoder(const DecoderDescription& description)
      : description_(description), layout_(description) {}

  DecoderDescription description_;
  ParameterLayout layout_;
};

// A model directory in memory.
struct LoadedModel {
  Decoder decoder;
  kernels::FloatBuffer weights;
};

// Reads `config.json` and the weights (one file or sharded) of a Hugging Face model directory.
// Tensors that the model does not have (buffers of old writers, a tied head) are ignored. Errors:
// those of read_config and SafetensorsReader; a missing tensor or a wrong shape is named.
Result<LoadedModel> load_model(const std::filesystem::path& folder);

class SafetensorsReader;
// One parameter, by its name, or by the shorter one that the family's older files have.
Result<> read_parameter(const SafetensorsReader& reader, const Decoder& decoder,
                        const Parameter& parameter, std::span<float> values);

// Only the decoder that `config.json` describes.
Result<Decoder> load_decoder(const std::filesystem::path& folder);

// Only the weights, into an arena of the decoder's layout.
Result<> load_weights(const Decoder& decoder, const std::filesystem::path& folder,
                      std::span<float> weights);

// Writes `config.json` and `model.safetensors` into an existing folder, replacing what is there.
Result<> save_model(const Decoder& decoder, std::span<const float> weights,
                    const std::filesystem::path& folder);

}  // namespace tutti::models
