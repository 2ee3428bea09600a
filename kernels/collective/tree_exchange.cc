#include "kernels/collective/tree_exchange.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "kernels/tensor/device.h"

namespace tutti::kernels {
namespace {

// Elements added at a time: all pieces of a tile stay in the second-level cache (8 pieces: 128
// KiB).
constexpr std::uint64_t kTileElements = 4096;

void add(float* __restrict into, const float* __restrict from, std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) into[i] += from[i];
}

std::span<std::byte> bytes_of(float* first, std::uint64_t count) {
  return std::as_writable_bytes(std::span(first, static_cast<std::size_t>(count)));
}

}  // namespace

TreeExchange::TreeExchange(const ShardTree& tree, std::uint32_t rank,
                           std::vector<std::uint64_t> borders, Device* device)
    : rank_(rank),
      borders_(std::move(borders)),
      additions_(additions_to_root(tree)),
      device_(device) {
  TUTTI_ASSERT(borders_.size() == tree.ranks() + 1 && rank < tree.ranks());
  for (std::uint64_t peer = 0; peer < tree.ranks(); ++peer) {
    pieces_of_.push_back(static_cast<std::uint32_t>(tree.subtrees_of(peer).size()));
  }
  const auto pieces = std::accumulate(pieces_of_.begin(), pieces_of_.end(), std::uint64_t{0});
  room_ =
      FloatBuffer(static_cast<Index>((pieces - pieces_of_[rank_]) * own_chunk().size()), device);
  for (const TreeAddition& addition : additions_) {
    device_additions_.push_back({addition.into, addition.from});
  }
}

Result<> TreeExchange::reduce_own_chunk(Communicator& group,
                                        std::span<const std::span<float>> parts,
                                        std::span<float> result) {
  TUTTI_ASSERT(parts.size() == pieces_of_[rank_] && result.size() >= borders_.back());
  const IndexRange own = own_chunk();
  transfers_.clear();
  pieces_.clear();
  float* room = room_.data();
  for (std::uint32_t peer = 0; peer < pieces_of_.size(); ++peer) {
    const std::uint64_t begin = borders_[peer];
    const std::uint64_t count = borders_[peer + 1] - begin;
    if (peer == rank_) {
      for (const auto& part : parts) pieces_.push_back(part.data() + own.begin);
      continue;
    }
    for (std::size_t i = 0; count > 0 && i < parts.size(); ++i) {
      transfers_.push_back(
          {Transfer::Direction::send, peer, bytes_of(parts[i].data() + begin, count)});
    }
    for (std::uint32_t i = 0; i < pieces_of_[peer]; ++i) {
      pieces_.push_back(room);
      if (own.empty()) continue;
      transfers_.push_back({Transfer::Direction::receive, peer, bytes_of(room, own.size())});
      room += own.size();
    }
  }
  device_transfers_ = transfers_.size();
  auto exchanged = exchange(group);
  if (!exchanged) return exchanged;
  return sum_pieces(result.data() + own.begin, own.size());
}

Result<> TreeExchange::sum_pieces(float* sum, std::uint64_t size) {
  if (device_ != nullptr) {
    return device_->enqueue(PieceSum{pieces_, device_additions_, static_cast<Index>(size), sum});
  }
  for (std::uint64_t first = 0; first < size; first += kTileElements) {
    const std::uint64_t count = std::min(kTileElements, size - first);
    for (const TreeAddition& addition : additions_) {
      add(pieces_[addition.into] + first, pieces_[addition.from] + first, count);
    }
    if (pieces_[0] != sum) std::memcpy(sum + first, pieces_[0] + first, count * sizeof(float));
  }
  return {};
}

Result<> TreeExchange::exchange(Communicator& group) {
  if (device_ == nullptr) return group.exchange(transfers_);
  if (!group.moves_device_memory()) return exchange_staged(group);
  return group.exchange(transfers_);
}

// Down, across, up again: the first `device_transfers_` of them are device memory.
Result<> TreeExchange::exchange_staged(Communicator& group) {
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < device_transfers_; ++i) bytes += transfers_[i].bytes.size();
  staged_.resize(bytes);
  std::vector<Transfer> across = transfers_;
  std::byte* next = staged_.data();
  for (std::size_t i = 0; i < device_transfers_; ++i) {
    const std::span<std::byte> here(next, transfers_[i].bytes.size());
    next += here.size();
    across[i].bytes = here;
    if (transfers_[i].direction != Transfer::Direction::send) continue;
    auto down = device_->download(here.data(), transfers_[i].bytes.data(), here.size());
    if (!down) return down;
  }
  auto exchanged = group.exchange(across);
  if (!exchanged) return exchanged;
  for (std::size_t i = 0; i < device_transfers_; ++i) {
    if (transfers_[i].direction != Transfer::Direction::receive) continue;
    auto up =
        device_->upload(transfers_[i].bytes.data(), across[i].bytes.data(), across[i].bytes.size());
    if (!up) return up;
  }
  return {};
}

Result<> TreeExchange::gather_chunks(Communicator& group, std::span<float> result,
                                     std::span<const std::span<std::byte>> also) {
  TUTTI_ASSERT(also.size() == pieces_of_.size());
  const IndexRange own = own_chunk();
  transfers_.clear();
  for (std::uint32_t peer = 0; peer < pieces_of_.size(); ++peer) {
    if (peer == rank_) continue;
    const std::uint64_t begin = borders_[peer];
    const std::uint64_t count = borders_[peer + 1] - begin;
    const auto move = [&](Transfer::Direction direction, std::span<std::byte> bytes) {
      if (!bytes.empty()) transfers_.push_back({direction, peer, bytes});
    };
    move(Transfer::Direction::send, bytes_of(result.data() + own.begin, own.size()));
    move(Transfer::Direction::receive, bytes_of(result.data() + begin, count));
  }
  device_transfers_ = transfers_.size();
  for (std::uint32_t peer = 0; peer < pieces_of_.size(); ++peer) {
    if (peer == rank_) continue;
    if (!also[rank_].empty()) {
      transfers_.push_back({Transfer::Direction::send, peer, also[rank_]});
    }
    if (!also[peer].empty()) {
      transfers_.push_back({Transfer::Direction::receive, peer, also[peer]});
    }
  }
  return exchange(group);
}

std::vector<std::uint64_t> chunk_borders(std::span<const std::uint64_t> starts,
                                         std::uint64_t elements, std::uint32_t ranks) {
  std::vector<std::uint64_t> borders = {0};
  for (std::uint32_t rank = 1; rank < ranks; ++rank) {
    const std::uint64_t ideal = rank * elements / ranks;
    const auto next = std::lower_bound(starts.begin(), starts.end(), ideal);
    borders.push_back(next == starts.end() ? elements : *next);
  }
  borders.push_back(elements);
  return borders;
}

}  // namespace tutti::kernels
