// The gradients of a rank's shards, added up to its maximal complete subtrees (DESIGN numerics,
// tree rule).
//
// Shard by shard, depth first: each shard's samples go through the pass in micro-batches that
// continue the chains in one buffer, and a finished shard is added to its sibling as soon as both
// are there. A subtree of 2^k shards needs k + 1 buffers at most, as in a binary counter; they are
// made in the first step and used again.
//
// The last shard is added to its siblings range by range while its backward pass goes on, where
// someone waits for that (Request::ready); the bits are the same.
//
// On a device nobody waits for a micro-batch: losses stay there and are fetched once, at the end.
// What the rank must hear of meanwhile is looked for between micro-batches (Request::look) and
// while it waits for that end (Request::wait), when gradients may be on their way to others.
//
// Ownership: owns the buffers and the pass. Threads: one; the context's threads compute.
// Errors: those of the data and the pass, and of what a request calls.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "jobs/data/dataset.h"
#include "jobs/models/parts/fp8_weights.h"
#include "jobs/models/training_pass.h"
#include "kernels/collective/shard_tree.h"
#include "kernels/tensor/buffer.h"
#include "kernels/tensor/op_context.h"

namespace tutti::training {

using ShardLoss = models::SampleLoss;

class ShardGradients {
 public:
  struct Options {
    // Samples that go through the pass together, and what it keeps of them; none changes a bit.
    std::uint32_t micro = 1;
    models::Recompute recompute = models::Recompute::none;
    models::Kept kept = models::Kept::wide;
    bool rounds_weights = true;  // once a step, where rows are kept rounded, or in fp8
    bool in_fp8 = false;
    double dropout = 0;
    std::uint64_t seed = 0;
  };
  // Buffers and activations are the device's, if there is one.
  ShardGradients(const models::Decoder& decoder, const data::Dataset& dataset,
                 const Options& options, kernels::Device* device = nullptr);

  struct Request {
    const kernels::OpContext& ctx;
    std::span<const float> weights;
    const kernels::ShardTree& tree;
    std::uint32_t rank = 0;
    std::uint64_t data_step = 0;            // counts from 0
    float loss_scale = 1.0F;                // of the gradients
    const std::function<Result<>()>& look;  // waits for nothing
    const std::function<Result<>()>& wait;  // for all that was enqueued
    // Told when the index-th range of models::backward_order() of all parts() has been enqueued,
    // while backward of what remains goes on; each range once, in order, if the rank has samples.
    // parts() and result() stand from the first call on. Empty: nobody is told.
    const models::RangeReady& ready;
  };

  // Fills parts() and losses(). What was there before is gone. Errors of `ready` too.
  Result<> compute(const Request& request);

  // One token forward and backward: a device chooses its algorithms for all products of a pass. The
  // gradients, layout.elements() of them, are anybody's until compute().
  Result<std::span<float>> rehearse(const kernels::OpContext& ctx, std::span<const float> weights);

  // The sums of subtrees_of(rank), each over layout.elements().
  std::span<const std::span<float>> parts() const { return parts_; }
  // Of the rank's shards in order, empty ones included.
  std::span<const ShardLoss> losses() const { return losses_; }
  // Where the sum over all ranks goes: parts()[0], or a buffer of its own where this rank has none.
  std::span<float> result() const { return result_; }

 private:
  Result<std::size_t> sum_of(const Request& request, const kernels::TreeNode& node);
  Result<> run_shard(const Request& request, std::uint64_t shard, std::size_t buffer);
  Result<> run_micro_batch(const Request& request, const kernels::IndexRange& samples,
                           std::span<float> gradients, const models::RangeReady& ready);
  Result<> sum_losses(const Request& request);
  models::Dropout dropout_of(const Request& request, std::uint64_t sample) const;
  bool holds_last_shard(const kernels::TreeNode& node) const;
  Result<> range_ready(const Request& request, std::size_t index);
  Result<> round_weights(std::span<const float> weights);
  models::PassWeights as_taken(std::span<const float> weights) const;
  std::size_t acquire();
  std::span<float> summed(std::size_t buffer);

  const models::Decoder& decoder_;
  const data::Dataset& dataset_;
  const Options options_;
  kernels::Device* const device_;
  models::TrainingPass pass_;
  std::optional<models::RoundedWeights> rounded_;  // of a device that keeps what products read
  std::optional<models::Fp8Weights> codes_;        // of a device in fp8
  std::vector<kernels::FloatBuffer> buffers_;
  std::vector<std::size_t> free_;
  const std::vector<kernels::IndexRange> order_;  // of ranges, in backward
  // Where someone is told of ranges: the rank's last shard with samples, its buffer, and those that
  // it will be added to, the last one first: range by range, as soon as each is there.
  std::optional<std::uint64_t> last_shard_;
  std::vector<std::size_t> onto_;
  std::size_t last_buffer_ = 0;
  std::vector<kernels::TreeNode> subtrees_;  // of the rank
  std::vector<std::span<float>> parts_;
  std::span<float> result_;
  std::vector<ShardLoss> losses_;
  std::uint64_t first_shard_ = 0;
  // One micro-batch: as read, and as the pass takes it.
  std::vector<std::uint32_t> read_;
  std::vector<std::int32_t> tokens_;
  std::vector<std::int32_t> targets_;
  std::vector<std::int32_t> offsets_;
  // Of all rows of the rank's samples; on a device, there and here.
  kernels::FloatBuffer row_losses_;
  std::vector<float> host_losses_;
  std::vector<std::int32_t> row_targets_;
  std::size_t rows_done_ = 0;
};

}  // namespace tutti::training
