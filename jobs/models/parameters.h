// The parameters of a model, declared: names, shapes, and where each one lies in a flat fp32 arena.
//
// Weights, gradients and each optimizer state are one arena (kernels::FloatBuffer) each, all of the
// same layout. A parameter begins at a multiple of 64 bytes; the elements between two parameters
// are padding, stay zero, and are no part of any hash, norm or file. Behind the head (a tied head:
// the embedding) these are its rows from the vocabulary up to `vocabulary_rows()`. Parameters lie
// in the order of their names, which is the order of the weight hash.
//
// The grid: each parameter, flattened by its logical shape, is cut at multiples of kGridElements.
// State shards, exchange chunks, norm and hash are cut only there.
//
// A gradient arena is longer than the others where embeddings are tied (`gradient_elements`): the
// two uses of the matrix are two sums, each a chain over a shard's tokens, and are added once per
// shard (TrainingPass::finish_shard), so that the cut into micro-batches does not show.
//
// Threads: immutable once made. Units: offsets and sizes in elements of 4 bytes.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "jobs/models/description.h"

namespace tutti::models {

inline constexpr std::uint64_t kGridElements = 65'536;
inline constexpr std::uint64_t kArenaAlignment = 16;  // elements: 64 bytes, a cache line

// What a parameter is used for. Per layer where `layer` below says so. Which of them a model has
// follows from its description.
enum class Role : std::uint8_t {
  embedding,
  position_embedding,
  attention_norm,
  attention_norm_bias,
  query,
  key,
  value,
  projections,  // query, key and value in one: bands of outputs in this order
  projections_bias,
  output,
  output_bias,
  feed_forward_norm,
  feed_forward_norm_bias,
  gate,
  up,
  up_bias,
  down,
  down_bias,
  final_norm,
  final_norm_bias,
  head,
};

struct Parameter {
  std::string name;  // Hugging Face's
  Role role = Role::embedding;
  std::uint32_t layer = 0;           // 0 for those outside layers
  std::vector<std::uint64_t> shape;  // logical, row-major; a layer's matrix as WeightOrder says
  std::uint64_t elements = 0;
  std::uint64_t offset = 0;  // in an arena
  bool decay = false;        // weight decay applies: matrices only
  bool trainable = true;
  double init_deviation = 0;  // normal with this deviation; 0: all are init_value
  float init_value = 1;
};

// One cell of the grid.
struct GridBlock {
  std::uint32_t parameter = 0;  // index into parameters()
  std::uint32_t elements = 0;   // <= kGridElements; the last of a parameter may be shorter
  std::uint64_t offset = 0;     // in an arena
};

class ParameterLayout {
 public:
  explicit ParameterLayout(const DecoderDescription& description);

  // In name order, which is also arena order and hash order.
  std::span<const Parameter> parameters() const { return parameters_; }
  // All blocks, parameter by parameter, ascending: the order of the weight hash.
  std::span<const GridBlock> blocks() const { return blocks_; }

  // Elements of an arena of weights or optimizer state, padding included.
  std::uint64_t elements() const { return elements_; }
  // Elements of a gradient arena: elements(), then the second use of a tied matrix, if any.
  std::uint64_t gradient_elements() const { return gradient_elements_; }
  // Parameters proper, without padding.
  std::uint64_t parameter_count() const { return parameter_count_; }

  // How the matrices of layers lie.
  WeightOrder order() const { return order_; }

  // The parameter of this name, or null. A tied head's name finds the embedding.
  const Parameter* find(std::string_view name) const;
  // The parameter in this role; a tied head is the embedding.
  const Parameter& at(Role role, std::uint32_t layer = 0) const;
  // The same, or null where the model has none in it.
  const Parameter* find(Role role, std::uint32_t layer = 0) const;

 private:
  std::vector<Parameter> parameters_;
  std::vector<GridBlock> blocks_;
  std::vector<std::uint32_t> by_role_;  // [layer * roles + role]: index into parameters_
  std::uint64_t elements_ = 0;
  std::uint64_t gradient_elements_ = 0;
  std::uint64_t parameter_count_ = 0;
  std::string tied_name_;
  WeightOrder order_ = WeightOrder::outputs;
};

}  // namespace tutti::models
