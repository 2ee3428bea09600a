// What all optimizers do alike: a walk over the parameters in name order, each with its part of
// every arena and its block hashes. What is not trained is hashed only. Updates of one kind are
// gathered, so that a device makes many parameters' in a launch.
#pragma once

#include <array>
#include <span>
#include <type_traits>
#include <utility>

#include "jobs/optimizers/optimizer.h"
#include "kernels/ops/adamw.h"
#include "kernels/tensor/matrix.h"

namespace tutti::optimizers {

inline constexpr std::size_t kStatesMax = 2;

// A parameter as a matrix; a vector is one of one row.
inline kernels::Index columns_of(const models::Parameter& parameter) {
  return static_cast<kernels::Index>(parameter.shape.empty() ? 1 : parameter.shape.back());
}
inline kernels::Index rows_of(const models::Parameter& parameter) {
  const kernels::Index columns = columns_of(parameter);
  return columns == 0 ? 0 : static_cast<kernels::Index>(parameter.elements) / columns;
}

struct ParameterStep {
  const models::Parameter& parameter;
  std::span<float> weight;
  std::span<const float> gradient;
  std::array<std::span<float>, kStatesMax> states;  // packed ones: words
  std::span<kernels::Hash128> hashes;
  double decay = 0;  // 0 for parameters that do not decay

  kernels::Index columns() const { return columns_of(parameter); }
  kernels::Index rows() const { return rows_of(parameter); }
  kernels::Matrix weights() const { return {weight.data(), rows(), columns()}; }
  kernels::ConstMatrix gradients() const { return {gradient.data(), rows(), columns()}; }
};

// Ranges that wait for one call of their op.
template <class Update, class Range>
class Gathered {
 public:
  using Run = Result<> (*)(const kernels::OpContext& ctx, const Update& args);

  Gathered(const kernels::OpContext& ctx, Run run) : ctx_(ctx), run_(run) {}

  Result<> add(const Range& range) {
    waiting_[count_++] = range;
    return count_ == kMost ? finish() : Result<>{};
  }
  Result<> finish() {
    return run_(ctx_, {.ranges = std::span(waiting_).first(std::exchange(count_, 0))});
  }

 private:
  static constexpr std::size_t kMost = 128;  // some 20 KB, on the stack: a step allocates nothing

  const kernels::OpContext& ctx_;
  Run run_;
  std::array<Range, kMost> waiting_;
  std::size_t count_ = 0;
};

// `update` may leave what it is given for later: in a list of its own.
template <class Update>
Result<> each_parameter(const kernels::OpContext& ctx, const spec::OptimizerSpec& settings,
                        const OptimizerStep& step, const Update& update,
                        models::PackedWords packed = nullptr) {
  TUTTI_ASSERT(step.states.size() <= kStatesMax);
  std::uint64_t words = 0;
  std::size_t block = 0;
  Gathered<kernels::HashBlocks, kernels::HashRange> frozen(ctx, kernels::hash_blocks);
  for (const models::Parameter& parameter : step.layout.parameters()) {
    const auto count = static_cast<std::size_t>(parameter.elements);
    const auto offset = static_cast<std::size_t>(parameter.offset);
    const models::StatePart part = models::state_part(parameter, packed, words);
    words += part.words;
    const auto blocks =
        static_cast<std::size_t>(kernels::grid_blocks(static_cast<kernels::Index>(count)));
    const std::span<kernels::Hash128> hashes = step.block_hashes.subspan(block, blocks);
    block += blocks;
    Result<> done;
    if (parameter.trainable) {
      ParameterStep own{.parameter = parameter,
                        .weight = step.weights.subspan(offset, count),
                        .gradient = step.gradients.subspan(offset, count),
                        .states = {},
                        .hashes = hashes,
                        .decay = parameter.decay ? settings.decay : 0.0};
      for (std::size_t i = 0; i < step.states.size(); ++i) {
        own.states[i] = step.states[i].subspan(part.offset, part.words);
      }
      done = update(own);
    } else {
      done = frozen.add({step.weights.subspan(offset, count), hashes});
    }
    if (!done) return done;
  }
  return frozen.finish();
}

// `run` of what range_of(own) says for each parameter.
template <class Update, class RangeOf>
Result<> each_parameter_together(const kernels::OpContext& ctx, const spec::OptimizerSpec& settings,
                                 const OptimizerStep& step,
                                 Result<> (*run)(const kernels::OpContext&, const Update&),
                                 const RangeOf& range_of, models::PackedWords packed = nullptr) {
  using Range = std::invoke_result_t<RangeOf, const ParameterStep&>;
  Gathered<Update, Range> gathered(ctx, run);
  auto done = each_parameter(
      ctx, settings, step, [&](const ParameterStep& own) { return gathered.add(range_of(own)); },
      packed);
  return done ? gathered.finish() : done;
}

// Both betas in [0, 1). Errors: invalid_argument, naming the optimizer.
Result<> check_betas(const spec::OptimizerSpec& settings, std::string_view name);

// AdamW's settings of this step, without decay; also for the parameters that others leave to it.
kernels::AdamWSettings adamw_settings(const spec::OptimizerSpec& settings,
                                      const OptimizerStep& step);
// Of one parameter; states: first and second moment.
kernels::AdamWRange adamw_of(const kernels::AdamWSettings& settings, const ParameterStep& own);

}  // namespace tutti::optimizers
