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

std::vector<std::uint64_t> block_starts(const models::ParameterLayout& layout) {
  std::vector<std::uint64_t> starts;
  for (const models::GridBlock& block : layout.blocks()) starts.push_back(block.offset);
  return starts;
}

}  // namespace

StepReduction::StepReduction(const models::ParameterLayout& layout, const kernels::ShardTree& tree,
                             std::uint32_t rank, kernels::Device* device)
    : layout_(layout), tree_(tree), rank_(rank), notes_(static_cast<std::size_t>(tree.ranks())) {
  const std::vector<std::uint64_t> starts = block_starts(layout);
  std::vector<std::uint64_t> borders =
      kernels::chunk_borders(starts, layout.elements(), static_cast<std::uint32_t>(tree.ranks()));
  const auto block_at = [&](std::uint64_t border) {
    return static_cast<std::uint64_t>(std::lower_bound(starts.begin(), starts.end(), border) -
                                      starts.begin());
  };
  for (std::size_t peer = 0; peer < notes_.size(); ++peer) {
    Note& note = notes_[peer];
    note.shards = tree.shards_of(peer);
    note.blocks = {block_at(borders[peer]), block_at(borders[peer + 1])};
    note.words.resize(kFixedWords + kWordsPerShard * static_cast<std::size_t>(note.shards.size()) +
                      static_cast<std::size_t>(note.blocks.size()));
  }
  squares_.resize(static_cast<std::size_t>(notes_[rank].blocks.size()));
  if (device != nullptr) {
    device_squares_ =
        kernels::FloatBuffer(2 * static_cast<kernels::Index>(squares_.size()), device);
  }
  exchange_.emplace(tree, rank, std::move(borders), device);
}

Result<StepSums> StepReduction::reduce(const Request& request) {
  const std::span<float> result = request.gradients.result();
  auto done = exchange_->reduce_own_chunk(request.group, request.gradients.parts(), result);
  if (done) done = write_own_note(request, result);
  if (!done) return std::move(done).error();
  std::vector<std::span<std::byte>> blocks;
  for (Note& note : notes_) blocks.push_back(std::as_writable_bytes(std::span(note.words)));
  done = exchange_->gather_chunks(request.group, result, blocks);
  if (!done) return std::move(done).error();
  return read_notes(request.step);
}

Result<> StepReduction::write_own_note(const Request& request, std::span<const float> result) {
  auto summed = sum_squares(request.ctx, result);
  if (!summed) return summed;
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
  return {};
}

// Blocks of one parameter lie together and go through the op at once.
Result<> StepReduction::sum_squares(const kernels::OpContext& ctx, std::span<const float> result) {
  const kernels::IndexRange own = notes_[rank_].blocks;
  const std::span<double> sums =
      ctx.device == nullptr
          ? std::span(squares_)
          : std::span(reinterpret_cast<double*>(device_squares_.data()), squares_.size());
  for (std::uint64_t first = own.begin; first < own.end;) {
    const models::GridBlock& start = layout_.blocks()[static_cast<std::size_t>(first)];
    std::uint64_t last = first;
    std::size_t elements = 0;
    for (; last < own.end; ++last) {
      const models::GridBlock& block = layout_.blocks()[static_cast<std::size_t>(last)];
      if (block.parameter != start.parameter) break;
      elements += block.elements;
    }
    auto summed =
        kernels::square_sums(ctx, result.subspan(static_cast<std::size_t>(start.offset), elements),
                             sums.subspan(static_cast<std::size_t>(first - own.begin),
                                          static_cast<std::size_t>(last - first)));
    if (!summed) return summed;
    first = last;
  }
  if (ctx.device == nullptr) return {};
  return ctx.device->download(squares_.data(), sums.data(), sums.size_bytes());
}

// Sums run over shards and blocks in ascending order, which no number of ranks changes.
Result<StepSums> StepReduction::read_notes(std::uint64_t step) const {
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
    for (std::uint64_t block = note.blocks.begin; block < note.blocks.end; ++block) {
      const double square = std::bit_cast<double>(note.words[next++]);
      if (!std::isfinite(square) && !sums.bad_parameter) {
        sums.bad_parameter = layout_.blocks()[static_cast<std::size_t>(block)].parameter;
      }
      sums.squares += square;
    }
  }
  return sums;
}

}  // namespace tutti::training
