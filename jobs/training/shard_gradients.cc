#include "jobs/training/shard_gradients.h"

#include <algorithm>

#include "kernels/ops/add.h"
#include "kernels/ops/elementwise/clear.h"
#include "kernels/tensor/device.h"

namespace tutti::training {

ShardGradients::ShardGradients(const models::Decoder& decoder, const data::Dataset& dataset,
                               const Options& options, kernels::Device* device)
    : decoder_(decoder),
      dataset_(dataset),
      options_(options),
      device_(device),
      pass_(decoder, {.rows_max = options.micro * dataset.sequence(), .samples_max = options.micro},
            device, options.recompute, options.kept),
      order_(models::backward_order(decoder.layout())),
      read_(2 * std::size_t{dataset.sequence()}) {
  if (options.kept != models::Kept::wide && options.rounds_weights)
    rounded_.emplace(decoder.layout(), *device);
  if (options.in_fp8 && options.rounds_weights) codes_.emplace(decoder, *device);
  const std::size_t rows = std::size_t{options.micro} * dataset.sequence();
  tokens_.resize(rows);
  targets_.resize(rows);
  for (std::uint32_t sample = 0; sample <= options.micro; ++sample) {
    offsets_.push_back(static_cast<std::int32_t>(sample * dataset.sequence()));
  }
}

Result<> ShardGradients::compute(const Request& request) {
  parts_.clear();
  free_.clear();
  onto_.clear();
  for (std::size_t buffer = buffers_.size(); buffer > 0; --buffer) free_.push_back(buffer - 1);
  const kernels::IndexRange shards = request.tree.shards_of(request.rank);
  first_shard_ = shards.begin;
  losses_.assign(static_cast<std::size_t>(shards.size()), {});
  rows_done_ = 0;
  std::uint64_t samples = 0;
  for (std::uint64_t shard = shards.begin; shard < shards.end; ++shard) {
    samples += request.tree.samples_of(shard).size();
  }
  const auto rows = static_cast<std::size_t>(samples * dataset_.sequence());
  if (rows > row_targets_.size()) {
    row_losses_ = kernels::FloatBuffer(static_cast<kernels::Index>(rows), device_);
    row_targets_.resize(rows);
    host_losses_.resize(device_ == nullptr ? 0 : rows);
  }
  last_shard_.reset();
  for (std::uint64_t shard = shards.begin; request.ready && shard < shards.end; ++shard) {
    if (!request.tree.samples_of(shard).empty()) last_shard_ = shard;
  }
  if (auto rounded = round_weights(request.weights); !rounded) return rounded;
  request.tree.subtrees_of(request.rank, subtrees_);
  for (const kernels::TreeNode& node : subtrees_) {
    auto buffer = sum_of(request, node);
    if (!buffer) return std::move(buffer).error();
    if (!holds_last_shard(node)) parts_.push_back(summed(*buffer));
  }
  result_ = parts_.empty() ? summed(acquire()) : parts_.front();
  return sum_losses(request);
}

// Once for all micro-batches of a step.
Result<> ShardGradients::round_weights(std::span<const float> weights) {
  if (rounded_) {
    if (auto rounded = rounded_->round(weights); !rounded) return rounded;
  }
  return codes_ ? codes_->make(weights) : Result<>();
}

models::PassWeights ShardGradients::as_taken(std::span<const float> weights) const {
  return {weights, rounded_ ? rounded_->data() : nullptr, codes_ ? &*codes_ : nullptr};
}

// The rank's shards and their samples went through the pass in order. To fetch losses is to wait
// for what computes them, in which the rank would hear of nothing: so that is waited for first.
Result<> ShardGradients::sum_losses(const Request& request) {
  const float* rows = row_losses_.data();
  if (device_ != nullptr && rows_done_ > 0) {
    if (auto computed = request.wait(); !computed) return computed;
    auto fetched = device_->download(host_losses_.data(), rows, rows_done_ * sizeof(float));
    if (!fetched) return fetched;
    rows = host_losses_.data();
  }
  std::size_t row = 0;
  for (std::size_t shard = 0; shard < losses_.size(); ++shard) {
    const kernels::IndexRange samples = request.tree.samples_of(first_shard_ + shard);
    for (std::uint64_t i = 0; i < samples.size(); ++i) {
      models::SampleLoss sample;
      for (std::uint32_t t = 0; t < dataset_.sequence(); ++t, ++row) {
        sample.add(rows[row], row_targets_[row]);
      }
      losses_[shard].sum += sample.sum;
      losses_[shard].targets += sample.targets;
    }
  }
  TUTTI_ASSERT(row == rows_done_);
  return {};
}

Result<std::span<float>> ShardGradients::rehearse(const kernels::OpContext& ctx,
                                                  std::span<const float> weights) {
  if (buffers_.empty()) acquire();
  const std::span<float> gradients = buffers_.front().span();
  if (auto cleared = kernels::clear(ctx, gradients); !cleared) return std::move(cleared).error();
  if (auto rounded = round_weights(weights); !rounded) return std::move(rounded).error();
  const std::int32_t token = 0;
  const std::int32_t offsets[] = {0, 1};
  const models::TokenBatch batch{.tokens = std::span(&token, 1),
                                 .targets = std::span(&token, 1),
                                 .positions = {},
                                 .offsets = offsets};
  auto ran = pass_.add_gradients(ctx, as_taken(weights), batch, gradients);
  if (!ran) return std::move(ran).error();
  return summed(0);
}

bool ShardGradients::holds_last_shard(const kernels::TreeNode& node) const {
  const kernels::IndexRange shards = node.shards();
  return last_shard_ && *last_shard_ >= shards.begin && *last_shard_ < shards.end;
}

// The buffer that holds the sum of the node's shards.
Result<std::size_t> ShardGradients::sum_of(const Request& request, const kernels::TreeNode& node) {
  if (node.level == 0) {
    const std::size_t buffer = acquire();
    auto ran = run_shard(request, node.index, buffer);
    if (!ran) return std::move(ran).error();
    return buffer;
  }
  const kernels::TreeNode left{node.level - 1, 2 * node.index};
  const kernels::TreeNode right{node.level - 1, 2 * node.index + 1};
  if (!request.tree.has_samples(left)) return sum_of(request, right);
  auto sum = sum_of(request, left);
  if (!sum || !request.tree.has_samples(right)) return sum;
  const bool by_ranges = holds_last_shard(right);
  if (by_ranges) onto_.push_back(*sum);
  auto other = sum_of(request, right);
  if (!other || by_ranges) return other ? sum : other;
  auto added = kernels::add_into(request.ctx, summed(*sum), summed(*other));
  if (!added) return std::move(added).error();
  free_.push_back(*other);
  return sum;
}

Result<> ShardGradients::run_shard(const Request& request, std::uint64_t shard,
                                   std::size_t buffer) {
  const std::span<float> gradients = buffers_[buffer].span();
  if (auto cleared = kernels::clear(request.ctx, gradients); !cleared) return cleared;
  const kernels::IndexRange samples = request.tree.samples_of(shard);
  const bool last = last_shard_ == shard;
  if (last) {
    last_buffer_ = buffer;
    parts_.push_back(summed(onto_.empty() ? buffer : onto_.front()));
    result_ = parts_.front();
  }
  const models::RangeReady nobody;
  const models::RangeReady tell = [&](std::size_t index) { return range_ready(request, index); };
  for (std::uint64_t first = samples.begin; first < samples.end; first += options_.micro) {
    if (auto goes_on = request.look(); !goes_on) return goes_on;
    const kernels::IndexRange some{first, std::min(samples.end, first + options_.micro)};
    const bool completes = last && some.end == samples.end;
    auto ran = run_micro_batch(request, some, gradients, completes ? tell : nobody);
    if (!ran) return ran;
  }
  pass_.finish_shard(request.ctx, gradients);
  return last ? tell(order_.size() - 1) : Result<>();
}

// Adds the range up the tree, and tells of it.
Result<> ShardGradients::range_ready(const Request& request, std::size_t index) {
  const kernels::IndexRange& range = order_[index];
  const auto in = [&](std::size_t buffer) {
    return buffers_[buffer].span().subspan(static_cast<std::size_t>(range.begin),
                                           static_cast<std::size_t>(range.size()));
  };
  std::size_t sum = last_buffer_;
  for (auto onto = onto_.rbegin(); onto != onto_.rend(); ++onto) {
    auto added = kernels::add_into(request.ctx, in(*onto), in(sum));
    if (!added) return added;
    sum = *onto;
  }
  return request.ready(index);
}

Result<> ShardGradients::run_micro_batch(const Request& request, const kernels::IndexRange& samples,
                                         std::span<float> gradients,
                                         const models::RangeReady& ready) {
  const std::size_t length = dataset_.sequence();
  const auto count = static_cast<std::size_t>(samples.size());
  for (std::size_t i = 0; i < count; ++i) {
    const std::span<std::uint32_t> inputs = std::span(read_).first(length);
    const std::span<std::uint32_t> targets = std::span(read_).last(length);
    auto got = dataset_.read_pair(request.data_step, static_cast<std::uint32_t>(samples.begin + i),
                                  inputs, targets);
    if (!got) return got;
    const auto narrow = [](std::uint32_t token) { return static_cast<std::int32_t>(token); };
    std::transform(inputs.begin(), inputs.end(), tokens_.data() + i * length, narrow);
    std::transform(targets.begin(), targets.end(), targets_.data() + i * length, narrow);
  }
  const models::TokenBatch batch{.tokens = std::span(tokens_).first(count * length),
                                 .targets = std::span(targets_).first(count * length),
                                 .positions = {},
                                 .offsets = std::span(offsets_).first(count + 1),
                                 .dropout = dropout_of(request, samples.begin),
                                 .loss_scale = request.loss_scale};
  auto passed =
      pass_.add_gradients(request.ctx, as_taken(request.weights), batch, gradients, ready);
  if (!passed) return passed;
  std::copy(batch.targets.begin(), batch.targets.end(),
            row_targets_.begin() + static_cast<std::ptrdiff_t>(rows_done_));
  const std::span<float> losses = row_losses_.span().subspan(rows_done_, count * length);
  rows_done_ += count * length;
  return pass_.keep_losses(request.ctx, losses);
}

// Rows are numbered through all steps of the run.
models::Dropout ShardGradients::dropout_of(const Request& request, std::uint64_t sample) const {
  const std::uint64_t samples_before = request.data_step * dataset_.batch() + sample;
  return {.rate = options_.dropout,
          .seed = options_.seed,
          .first_row = samples_before * dataset_.sequence()};
}

std::size_t ShardGradients::acquire() {
  if (free_.empty()) {
    buffers_.emplace_back(static_cast<kernels::Index>(decoder_.layout().gradient_elements()),
                          device_);
    return buffers_.size() - 1;
  }
  const std::size_t buffer = free_.back();
  free_.pop_back();
  return buffer;
}

std::span<float> ShardGradients::summed(std::size_t buffer) {
  return buffers_[buffer].span().first(static_cast<std::size_t>(decoder_.layout().elements()));
}

}  // namespace tutti::training
