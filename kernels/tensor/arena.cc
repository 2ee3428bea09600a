#include "kernels/tensor/arena.h"

#include <algorithm>

namespace tutti::kernels {

namespace {
constexpr std::size_t kAlignment = 64;
constexpr std::size_t kChunkMin = std::size_t{64} << 10;

std::size_t round_up(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}
}  // namespace

Arena::Arena(std::size_t bytes_at_start) { chunks_.emplace_back(round_up(bytes_at_start)); }

std::byte* Arena::take(std::size_t bytes) {
  bytes = round_up(std::max<std::size_t>(bytes, 1));
  while (chunk_ < chunks_.size() && used_in_chunk_ + bytes > chunks_[chunk_].size()) {
    ++chunk_;
    used_in_chunk_ = 0;
  }
  if (chunk_ == chunks_.size()) {
    chunks_.emplace_back(std::max({bytes, kChunkMin, reserved() / 2}));
  }
  std::byte* const place = chunks_[chunk_].data() + used_in_chunk_;
  used_in_chunk_ += bytes;
  used_ += bytes;
  used_max_ = std::max(used_max_, used_);
  return place;
}

void Arena::release(const Mark& mark) {
  TUTTI_ASSERT(mark.used <= used_);
  chunk_ = mark.chunk;
  used_in_chunk_ = mark.used_in_chunk;
  used_ = mark.used;
  if (used_ == 0 && chunks_.size() > 1) {
    // One chunk of the largest use: the next round fits without a gap and without an allocation.
    chunks_.clear();
    chunks_.emplace_back(used_max_);
    chunk_ = 0;
    used_in_chunk_ = 0;
  }
}

std::size_t Arena::reserved() const {
  std::size_t bytes = 0;
  for (const AlignedBytes& chunk : chunks_) bytes += chunk.size();
  return bytes;
}

}  // namespace tutti::kernels
