// From every rank's subtree sums to the one gradient of a step and what must be known of it, in
// every rank.
//
//   tree exchange   each rank owns a chunk, adds all its pieces in tree order, looks at its norm
//   gather          chunks, and with them losses and target counts by shard, fp64 squares by grid
//                   block, flags
//
// Afterwards a rank can make the step without another word from anyone (the step commit, DESIGN
// jobs). The same bits for any number of ranks.
//
// Threads: one; the context's threads compute. Errors: the communicator's; corrupt if ranks are at
// different steps.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "jobs/training/shard_gradients.h"
#include "kernels/collective/tree_exchange.h"

namespace tutti::training {

// Flags are OR-ed over the ranks, so that all of them act after the same step.
inline constexpr std::uint64_t kFlagSave = 1;
inline constexpr std::uint64_t kFlagStop = 2;

struct StepSums {
  double loss = 0;  // over all target tokens
  std::uint64_t targets = 0;
  double squares = 0;  // of the summed gradient
  std::uint64_t flags = 0;
  std::optional<std::uint32_t> bad_parameter;  // the first whose gradient is not finite
};

class StepReduction {
 public:
  StepReduction(const models::ParameterLayout& layout, const kernels::ShardTree& tree,
                std::uint32_t rank, kernels::Device* device = nullptr);

  const kernels::ShardTree& tree() const { return tree_; }

  // The sum over all shards ends in gradients.result().
  struct Request {
    const kernels::OpContext& ctx;
    kernels::Communicator& group;
    ShardGradients& gradients;
    std::uint64_t step = 0;
    std::uint64_t flags = 0;
  };
  Result<StepSums> reduce(const Request& request);

 private:
  // What rank r tells all, as 64-bit words: step, flags, (loss, targets) by shard, squares by block
  // of its chunk.
  struct Note {
    kernels::IndexRange shards;
    kernels::IndexRange blocks;
    std::vector<std::uint64_t> words;
  };

  Result<> write_own_note(const Request& request, std::span<const float> result);
  Result<> sum_squares(const kernels::OpContext& ctx, std::span<const float> result);
  Result<StepSums> read_notes(std::uint64_t step) const;

  const models::ParameterLayout& layout_;
  kernels::ShardTree tree_;
  std::uint32_t rank_;
  std::vector<Note> notes_;
  std::optional<kernels::TreeExchange> exchange_;
  std::vector<double> squares_;          // by block of the own chunk
  kernels::FloatBuffer device_squares_;  // two floats' room each, where they are computed
};

}  // namespace tutti::training
