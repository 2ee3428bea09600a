// Optimizers: a table of rows, each a name, the states it keeps, and its step over all parameters.
//
// A step reads the summed gradients, updates weights and states in place, and hashes each grid
// block while it is in cache. To add one: a file with its row, and the row in optimizers(); specs,
// checkpoints and tests follow the table.
//
// Ownership: all memory is the caller's; every arena has the layout's size, those of packed states
// that of models::StateLayout. Threads: the context's.
// Errors: invalid_argument (a setting out of range); nothing is written then.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "jobs/models/parameters.h"
#include "jobs/models/state_layout.h"
#include "kernels/ops/weight_hash.h"
#include "kernels/tensor/op_context.h"
#include "protocol/base/result.h"
#include "protocol/spec/job_spec.h"

namespace tutti::optimizers {

struct OptimizerStep {
  const models::ParameterLayout& layout;
  std::span<float> weights;
  std::span<const float> gradients;          // sums over target tokens
  std::span<const std::span<float>> states;  // in the order of Optimizer::states
  std::span<kernels::Hash128> block_hashes;  // of the updated weights, one per layout.blocks()
  std::uint64_t step = 1;                    // the one being made, from 1
  double rate = 0;
  double rate_squares = 1;  // of this step and all before it, summed (schedule.h)
  float factor = 1;         // of the gradients: clip and token count in one number
};

struct ModelOfStates {
  std::span<const float> weights;
  std::span<const std::span<float>> states;
  std::span<float> model;  // written
};

struct Optimizer {
  std::string_view name;                     // in specs
  std::span<const std::string_view> states;  // names, as in checkpoints
  Result<> (*check)(const spec::OptimizerSpec& settings);
  Result<> (*update)(const kernels::OpContext& ctx, const spec::OptimizerSpec& settings,
                     const OptimizerStep& step);
  models::PackedWords packed = nullptr;  // how all its states lie; null: fp32
  // The state that begins as a copy of the weights; all others begin as zeros.
  std::string_view begins_as_weights = {};
  // The model that was trained, where that is not the weights: what checkpoints hold as the model,
  // and the weights beside the states (decision 0026). Null: the weights.
  Result<> (*model)(const kernels::OpContext& ctx, const spec::OptimizerSpec& settings,
                    const ModelOfStates& args) = nullptr;
  // Bytes that its ops take for themselves on a device, at most. Null: too few to speak of.
  std::uint64_t (*room)(const models::ParameterLayout& layout) = nullptr;
  // Every product of a step once, so that a device has chosen its algorithms before ranks compare
  // them; `numbers` (layout.elements(), finite) are written over. Null: a step has no products.
  Result<> (*rehearse)(const kernels::OpContext& ctx, const models::ParameterLayout& layout,
                       std::span<float> numbers) = nullptr;
};

// As a run begins.
void begin_states(const Optimizer& optimizer, std::span<const float> weights,
                  std::span<const std::span<float>> states);

std::span<const Optimizer> optimizers();

// Errors: unsupported, with the names that are known.
Result<const Optimizer*> find_optimizer(std::string_view name);

// The rows.
extern const Optimizer kAdafactor;
extern const Optimizer kAdamW;
extern const Optimizer kAdamW8;
extern const Optimizer kLion;
extern const Optimizer kMuon;
extern const Optimizer kScheduleFree;
extern const Optimizer kSgd;

}  // namespace tutti::optimizers
