#include "jobs/training/step_reduction.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <string>

#include "kernels/ops/gradient_norm.h"
#include "kernels/tensor/device.h"

namespace tutti::training {
namespace {

constexpr std::size_t kStepWord = 0;
constexpr std::size_t kFlagsWord = 1;
constexpr std::size_t kFixedWords = 2;
constexpr std::size_t kWordsPerShard = 2;

// Small enough that little is left to exchange when backward ends, and few: each costs the ranks
// two meetings.
constexpr std::uint64_t kBucketsAbout = 16;

std::vector<std::uint64_t> block_starts(const models::ParameterLayout& layout) {
  std::vector<std::uint64_t> starts;
  for (const models::GridBlock& block : layout.blocks()) starts.push_back(block.offset);
  return starts;
}

// The grid's blocks in a range, each up to the next one.
void add_blocks(const std::vector<std::uint64_t>& starts, const kernels::IndexRange& range,
                std::vector<kernels::IndexRange>& blocks) {
  auto start = std::lower_bound(starts.begin(), starts.end(), range.begin);
  for (; start != starts.end() && *start < range.end; ++start) {
    const auto next = start + 1;
    blocks.push_back({*start, next == starts.end() ? range.end : std::min(*next, range.end)});
  }
}

struct Buckets {
  std::vector<kernels::Shares> shares;
  std::vector<std::size_t> after;  // by range of the order: how many are whole with it
};

// Ranges that follow each other in backward are joined until they are worth a transfer.
Buckets cut_arena(const models::ParameterLayout& layout, std::uint32_t ranks) {
  const std::vector<std::uint64_t> starts = block_starts(layout);
  Buckets out;
  std::vector<kernels::IndexRange> blocks;
  std::uint64_t elements = 0;
  std::uint64_t left = layout.elements();
  for (const kernels::IndexRange& range : models::backward_order(layout)) {
    add_blocks(starts, range, blocks);
    elements += range.size();
    left -= range.size();
    if (elements * kBucketsAbout >= layout.elements() || left == 0) {
      out.shares.push_back(kernels::cut_bucket(blocks, ranks));
      blocks.clear();
      elements = 0;
    }
    out.after.push_back(out.shares.size());
  }
  return out;
}

}  // namespace

std::uint64_t exchange_room(const models::ParameterLayout& layout, const kernels::ShardTree& tree,
                            std::uint32_t rank) {
  const auto ranks = static_cast<std::uint32_t>(tree.ranks());
  std::uint64_t pieces = 0;
  for (std::uint32_t peer = 0; peer < ranks; ++peer) {
    if (peer != rank) pieces += tree.subtrees_of(peer).size();
  }
  std::uint64_t own = 0;
  for (const kernels::Shares& shares : cut_arena(layout, ranks).shares) {
    std::uint64_t elements = 0;
    for (const kernels::IndexRange& range : shares[rank]) elements += range.size();
    own = std::max(own, elements);
  }
  return pieces * own;
}

StepReduction::StepReduction(const models::ParameterLayout& layout, const kernels::ShardTree& tree,
                             std::uint32_t rank, kernels::Device* device)
    : layout_(layout), tree_(tree), rank_(rank), notes_(static_cast<std::size_t>(tree.ranks())) {
  const auto ranks = static_cast<std::uint32_t>(tree.ranks());
  const std::vector<std::uint64_t> starts = block_starts(layout);
  Buckets buckets;
  if (device == nullptr) {
    const auto borders = kernels::chunk_borders(starts, layout.elements(), ranks);
    buckets.shares.push_back(kernels::shares_between(borders));
  } else {
    buckets = cut_arena(layout, ranks);
  }
  for (std::size_t peer = 0; peer < notes_.size(); ++peer) {
    Note& note = notes_[peer];
    note.shards = tree.shards_of(peer);
    for (const kernels::Shares& shares : buckets.shares) {
      for (const kernels::IndexRange& range : shares[peer]) add_block_indexes(starts, range, note);
    }
    std::sort(note.blocks.begin(), note.blocks.end());
    note.words.resize(kFixedWords + kWordsPerShard * static_cast<std::size_t>(note.shards.size()) +
                      note.blocks.size());
    note_bytes_.push_back(std::as_writable_bytes(std::span(note.words)));
  }
  all_squares_.resize(layout.blocks().size());
  squares_.resize(notes_[rank].blocks.size());
  for (const std::uint32_t index : notes_[rank].blocks) {
    const models::GridBlock& block = layout.blocks()[index];
    blocks_.push_back({static_cast<kernels::Index>(block.offset), block.elements});
  }
  if (device != nullptr) {
    device_squares_ =
        kernels::FloatBuffer(2 * static_cast<kernels::Index>(squares_.size()), device);
  }
  buckets_after_ = std::move(buckets.after);
  exchange_.emplace(tree, rank, std::move(buckets.shares), device);
}

void StepReduction::add_block_indexes(const std::vector<std::uint64_t>& starts,
                                      const kernels::IndexRange& range, Note& note) {
  auto start = std::lower_bound(starts.begin(), starts.end(), range.begin);
  for (; start != starts.end() && *start < range.end; ++start) {
    note.blocks.push_back(static_cast<std::uint32_t>(start - starts.begin()));
  }
}

Result<> StepReduction::range_ready(const kernels::OpContext& ctx, kernels::Communicator& group,
                                    ShardGradients& gradients, std::size_t index) {
  return begin_up_to(ctx, group, gradients, buckets_after_.at(index));
}

Result<> StepReduction::begin_up_to(const kernels::OpContext& ctx, kernels::Communicator& group,
                                    ShardGradients& gradients, std::size_t buckets) {
  for (; begun_ < buckets; ++begun_) {
    auto begun = exchange_->begin({ctx, group, begun_, gradients.parts(), gradients.result()});
    if (!begun) return begun;
  }
  return {};
}

Result<StepSums> StepReduction::reduce(const Request& request) {
  const std::span<float> result = request.gradients.result();
  Result<> done;
  if (request.ctx.device == nullptr) {
    const kernels::TreeExchange::Work whole{.ctx = request.ctx,
                                            .group = request.group,
                                            .parts = request.gradients.parts(),
                                            .result = result,
                                            .blocks = blocks_,
                                            .squares = squares_};
    done = exchange_->reduce(whole);
    write_own_note(request);
    if (done) done = exchange_->gather(whole, note_bytes_);
  } else {
    done = begin_up_to(request.ctx, request.group, request.gradients, exchange_->buckets());
    if (done) done = request.group.finish();
    if (done) done = sum_device_squares(request.ctx, result);
    write_own_note(request);
    if (done) done = exchange_->tell(request.group, note_bytes_);
  }
  if (!done) return std::move(done).error();
  return read_notes(request.step);
}

void StepReduction::write_own_note(const Request& request) {
  std::vector<std::uint64_t>& words = notes_[rank_].words;
  words[kStepWord] = request.step;
  words[kFlagsWord] = request.flags;
  std::size_t next = kFixedWords;
  for (const ShardLoss& loss : request.gradients.losses()) {
    words[next++] = std::bit_cast<std::uint64_t>(loss.sum);
    words[next++] = loss.targets;
  }
  for (const double square : squares_) words[next++] = std::bit_cast<std::uint64_t>(square);
  TUTTI_ASSERT(next == words.size());
}

Result<> StepReduction::sum_device_squares(const kernels::OpContext& ctx,
                                           std::span<const float> result) {
  const std::vector<std::uint32_t>& own = notes_[rank_].blocks;
  const std::span<double> sums(reinterpret_cast<double*>(device_squares_.data()), squares_.size());
  device_sums_.clear();
  for (std::size_t first = 0; first < own.size();) {
    const models::GridBlock& start = layout_.blocks()[own[first]];
    std::size_t last = first;
    std::size_t elements = 0;
    for (; last < own.size() && own[last] - own[first] == last - first; ++last) {
      const models::GridBlock& block = layout_.blocks()[own[last]];
      if (block.parameter != start.parameter) break;
      elements += block.elements;
    }
    device_sums_.push_back({result.subspan(static_cast<std::size_t>(start.offset), elements),
                            sums.subspan(first, last - first)});
    first = last;
  }
  if (auto summed = kernels::square_sums(ctx, {.ranges = device_sums_}); !summed) return summed;
  return ctx.device->download(squares_.data(), sums.data(), sums.size_bytes());
}

// Sums run over shards and blocks in ascending order, which no number of ranks and no bucket
// changes.
Result<StepSums> StepReduction::read_notes(std::uint64_t step) {
  StepSums sums;
  for (const Note& note : notes_) {
    if (note.words[kStepWord] != step) {
      return Error{ErrorCode::corrupt, "a rank is at step " +
                                           std::to_string(note.words[kStepWord]) +
                                           ", this one at step " + std::to_string(step)};
    }
    sums.flags |= note.words[kFlagsWord];
    std::size_t next = kFixedWords;
    for (std::uint64_t shard = note.shards.begin; shard < note.shards.end; ++shard) {
      sums.loss += std::bit_cast<double>(note.words[next++]);
      sums.targets += note.words[next++];
    }
    for (const std::uint32_t block : note.blocks) {
      all_squares_[block] = std::bit_cast<double>(note.words[next++]);
    }
  }
  for (std::size_t block = 0; block < all_squares_.size(); ++block) {
    if (!std::isfinite(all_squares_[block]) && !sums.bad_parameter) {
      sums.bad_parameter = layout_.blocks()[block].parameter;
    }
    sums.squares += all_squares_[block];
  }
  return sums;
}

}  // namespace tutti::training
