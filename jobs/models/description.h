// A decoder as data: everything about a model but its weights.
//
// The same description serves training and serving. It comes from a job spec (a new model) or from
// the `config.json` of a Hugging Face model directory, and is written as such a file again.
// Families (family.h) translate; nothing outside them knows a family's key or tensor names.
//
// Threads: plain data. Units: sizes in elements, positions in tokens.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/ops/elementwise/activation.h"
#include "protocol/base/result.h"
#include "protocol/spec/job_spec.h"

namespace tutti::models {

// rms: a weight (rms_norm.h); layer: a weight and a bias (layer_norm.h).
enum class Norm : std::uint8_t { rms, layer };

// rotary: queries and keys are turned. learned: a row of a table, positions_max of them, is added
// to a token's embedding, so that no longer sequence can be run.
enum class Positions : std::uint8_t { rotary, learned };

// How a matrix of a linear layer lies: a row an output, or (Radford et al. 2019) a row an input.
enum class WeightOrder : std::uint8_t { outputs, inputs };

// Query, key and value as matrices of their own, or as bands of one.
enum class Projections : std::uint8_t { separate, fused };

// down(f(gate) * up), or down(f(up)).
enum class FeedForward : std::uint8_t { gated, plain };

// How rotary frequencies are stretched for long contexts. llama3: Dubey et al. 2024, as in
// Transformers' `rope_type: llama3` (low frequencies divided by `factor`, a smooth ramp between the
// two wave lengths).
struct RopeScaling {
  enum class Kind : std::uint8_t { none, llama3 };
  Kind kind = Kind::none;
  double factor = 1;
  double low_frequency_factor = 1;
  double high_frequency_factor = 4;
  std::uint32_t original_positions = 8192;

  bool operator==(const RopeScaling&) const = default;
};

struct DecoderDescription {
  std::string family;  // a row of families()
  std::uint32_t layers = 0;
  std::uint32_t width = 0;         // C, the residual stream
  std::uint32_t heads = 0;         // query heads
  std::uint32_t kv_heads = 0;      // divides heads
  std::uint32_t head_dim = 0;      // a multiple of 8; heads * head_dim need not be the width
  std::uint32_t feed_forward = 0;  // F, the inner width
  std::uint32_t vocabulary = 0;    // V
  // Rows of the head in an arena: up to a multiple of this, for products that take whole tiles
  // (decision 0042). In no file.
  std::uint32_t vocabulary_multiple = 1;
  std::uint32_t positions_max = 0;  // longest sequence that the model is made for
  double norm_epsilon = 1e-5;
  double rope_theta = 10'000;
  RopeScaling rope_scaling;
  Norm norm = Norm::rms;
  Positions positions = Positions::rotary;
  WeightOrder order = WeightOrder::outputs;  // of layers; embeddings and head: outputs
  Projections projections = Projections::separate;
  FeedForward inner = FeedForward::gated;
  kernels::Activation activation = kernels::Activation::silu;
  bool biases = false;            // of all linear layers but the head
  bool tied = false;              // input embedding and output head are one matrix
  double init_deviation = 0.02;   // of fresh matrices
  std::int64_t begin_token = -1;  // -1: none
  std::vector<std::int64_t> end_tokens;

  std::uint32_t query_width() const { return heads * head_dim; }
  std::uint32_t kv_width() const { return kv_heads * head_dim; }
  std::uint32_t vocabulary_rows() const {
    return (vocabulary + vocabulary_multiple - 1) / vocabulary_multiple * vocabulary_multiple;
  }

  bool operator==(const DecoderDescription&) const = default;
};

// Whether the numbers make a model that this build can run. Errors: invalid_argument naming the
// field and its value.
Result<> check(const DecoderDescription& description);

// A new model of the shape in a spec whose `path` is empty. `positions` is the longest sequence
// that it will see. Errors: unsupported (family, with the list of those known), invalid_argument.
Result<DecoderDescription> describe(const spec::ModelSpec& model, std::uint32_t positions);

// `config.json` of a model directory, and its text. Errors: not_found, corrupt (not JSON),
// unsupported (model type or a setting that would change the arithmetic), invalid_argument (a key
// missing or of a wrong kind, named).
Result<DecoderDescription> read_config(const std::filesystem::path& model_folder);
Result<DecoderDescription> parse_config(std::string_view json);
std::string to_config_json(const DecoderDescription& description);

}  // namespace tutti::models
