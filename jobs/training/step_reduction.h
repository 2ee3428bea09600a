// From every rank's subtree sums to the one gradient of a step and what must be known of it, in
// every rank.
//
//   tree exchange   each rank owns a share, adds all its pieces in tree order, with its norm
//   gather          shares, and with them losses and target counts by shard, fp64 squares by grid
//                   block, flags
//
// On a device the arena is exchanged in buckets, in the order in which backward completes them;
// where the group moves device memory, each is begun as soon as its gradients have been enqueued,
// and only the last ones are waited for (range_ready).
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

// Elements that a rank on a device sets aside for what it gets of the others' sums.
std::uint64_t exchange_room(const models::ParameterLayout& layout, const kernels::ShardTree& tree,
                            std::uint32_t rank);

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

  // The index-th range of models::backward_order() has been enqueued in all parts of `gradients`:
  // what is whole with it is begun. Only in groups that move device memory; reduce() follows.
  Result<> range_ready(const kernels::OpContext& ctx, kernels::Communicator& group,
                       ShardGradients& gradients, std::size_t index);
  // A new step: what an earlier one began is of no account.
  void start_step() { begun_ = 0; }

 private:
  // What rank r tells all, as 64-bit words: step, flags, (loss, targets) by shard, squares by block
  // of its shares.
  struct Note {
    kernels::IndexRange shards;
    std::vector<std::uint32_t> blocks;  // ascending
    std::vector<std::uint64_t> words;
  };

  static void add_block_indexes(const std::vector<std::uint64_t>& starts,
                                const kernels::IndexRange& range, Note& note);
  Result<> begin_up_to(const kernels::OpContext& ctx, kernels::Communicator& group,
                       ShardGradients& gradients, std::size_t buckets);
  void write_own_note(const Request& request);
  Result<> sum_device_squares(const kernels::OpContext& ctx, std::span<const float> result);
  Result<StepSums> read_notes(std::uint64_t step);

  const models::ParameterLayout& layout_;
  kernels::ShardTree tree_;
  std::uint32_t rank_;
  std::vector<Note> notes_;
  std::vector<std::span<std::byte>> note_bytes_;  // of all ranks
  std::optional<kernels::TreeExchange> exchange_;
  std::vector<std::size_t> buckets_after_;  // by range of the order: how many are whole with it
  std::size_t begun_ = 0;                   // buckets, in this step
  std::vector<kernels::AddPieces::Block> blocks_;  // of the own shares
  std::vector<double> squares_;                    // by block
  std::vector<double> all_squares_;                // by block of the arena
  kernels::FloatBuffer device_squares_;            // two floats' room each, where they are computed
  std::vector<kernels::SquareRange>
      device_sums_;  // how: of blocks that lie together in a parameter
};

}  // namespace tutti::training
