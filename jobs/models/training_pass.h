// Forward and backward of a decoder over a ragged batch of training samples, with all memory
// planned up front.
//
// Gradients and losses are sums over target tokens, never means. A gradient is one chain of fused
// multiply-adds over the tokens in order; a call continues the chains that are in the gradient
// arena, so one shard's samples may come in one call or in many (micro-batches of whole samples, in
// order) and give the same bits. The caller zeroes the arena before a shard, calls finish_shard
// after it, and then adds shards in tree order over [0, layout.elements()).
//
//   TrainingPass pass(decoder, {.rows_max = 2048, .samples_max = 8});
//   for each micro-batch: pass.forward_backward(ctx, weights, batch, gradients, losses);
//   pass.finish_shard(ctx, gradients);
//
// Ownership: the pass owns activations; it keeps a reference to the decoder. Threads: one at a
// time; the context's threads compute. The same bits for any number of them. A call allocates
// nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "jobs/models/decoder.h"
#include "jobs/models/parts/dropout.h"
#include "jobs/models/parts/layer_bands.h"
#include "jobs/models/parts/rounded_weights.h"
#include "kernels/collective/shard_tree.h"
#include "protocol/base/result.h"

namespace tutti::kernels {
class Device;
}

namespace tutti::models {

// Samples one after the other: sample s holds rows offsets[s] .. offsets[s+1]-1.
struct TokenBatch {
  std::span<const std::int32_t> tokens;     // [rows], each in [0, V)
  std::span<const std::int32_t> targets;    // [rows]; -1: this row has none
  std::span<const std::int32_t> positions;  // [rows]; within each sample. Empty: counted from 0
  std::span<const std::int32_t> offsets;    // [samples + 1], from 0 to rows
  Dropout dropout = {};                     // of a rate in [0, 1); no part of token_losses
  float loss_scale = 1.0F;                  // a power of two; gradients are multiplied by it
};

// The sum of -log p(target) over one sample's target tokens, and their number. A sum over samples
// is made by the caller, in sample order.
struct SampleLoss {
  double sum = 0;
  std::uint64_t targets = 0;

  // The next row's; a row without a target has no loss.
  void add(float loss, std::int32_t target) {
    sum += static_cast<double>(loss);
    targets += target < 0 ? 0 : 1;
  }
};

// The gradient arena in the ranges that backward completes, in its order: head, final norm, layers
// from the last to the first, embeddings. They are disjoint and cover [0, elements()).
std::vector<kernels::IndexRange> backward_order(const ParameterLayout& layout);

// Called when all that writes the index-th range of backward_order() has been enqueued: of all but
// the last range, which finish_shard may still change. An error ends the call that is told it.
using RangeReady = std::function<Result<>(std::size_t)>;

struct PassLimits {
  std::uint32_t rows_max = 0;     // tokens in one call
  std::uint32_t samples_max = 0;  // samples or sequences in one call
};

class TrainingPass {
 public:
  // On a device, weights and gradients are its memory; batches and losses stay the host's.
  // `recompute`: how much memory activations take, for more time; `kept`: how they are kept, wide
  // but on a device whose products round what they read. Neither changes a bit.
  TrainingPass(const Decoder& decoder, PassLimits limits, kernels::Device* device = nullptr,
               Recompute recompute = Recompute::none, Kept kept = Kept::wide);
  TrainingPass(TrainingPass&&) noexcept;
  ~TrainingPass();

  // Bytes of activations that the constructor sets aside.
  static std::uint64_t workspace_bytes(const DecoderDescription& description, PassLimits limits,
                                       Recompute recompute = Recompute::none,
                                       Kept kept = Kept::wide);

  // Adds the batch's gradients to `gradients` (layout.gradient_elements()). Nobody waits for a
  // device, and calls that enqueue the same work again may be a captured graph
  // (Device::run_repeated): those without `ready`, which may be empty, and without dropout, whose
  // draws a graph would repeat. Errors: invalid_argument (limits exceeded, a token outside the
  // vocabulary, sizes that do not fit), nothing is written then; those of `ready`.
  Result<> add_gradients(const kernels::OpContext& ctx, const PassWeights& weights,
                         const TokenBatch& batch, std::span<float> gradients,
                         const RangeReady& ready = {});
  // -log p(target) of each row of the last call's batch (0 where it has no target), into memory of
  // the device, if there is one.
  Result<> keep_losses(const kernels::OpContext& ctx, std::span<float> losses);

  // add_gradients, and one loss per sample, waited for.
  Result<> forward_backward(const kernels::OpContext& ctx, const PassWeights& weights,
                            const TokenBatch& batch, std::span<float> gradients,
                            std::span<SampleLoss> losses, const RangeReady& ready = {});

  // Forward only: -log p(target) of each row (0 where it has no target). Same bits as in
  // forward_backward.
  Result<> token_losses(const kernels::OpContext& ctx, const PassWeights& weights,
                        const TokenBatch& batch, std::span<float> losses);

  // Ends a shard's chains: adds the two uses of tied embeddings. Afterwards [0, layout.elements())
  // is the gradient.
  void finish_shard(const kernels::OpContext& ctx, std::span<float> gradients) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tutti::models
