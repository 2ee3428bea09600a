#include "kernels/collective/tree_exchange.h"

#include <algorithm>
#include <numeric>

#include "kernels/tensor/device.h"

namespace tutti::kernels {
namespace {

std::span<std::byte> bytes_of(float* first, std::uint64_t count) {
  return std::as_writable_bytes(std::span(first, static_cast<std::size_t>(count)));
}

}  // namespace

TreeExchange::TreeExchange(const ShardTree& tree, std::uint32_t rank, std::vector<Shares> buckets,
                           Device* device)
    : rank_(rank), buckets_(std::move(buckets)), device_(device) {
  TUTTI_ASSERT(rank < tree.ranks());
  std::uint64_t own = 0;
  for (std::size_t bucket = 0; bucket < buckets_.size(); ++bucket) {
    TUTTI_ASSERT(buckets_[bucket].size() == tree.ranks());
    own = std::max(own, own_elements(bucket));
  }
  for (std::uint64_t peer = 0; peer < tree.ranks(); ++peer) {
    pieces_of_.push_back(static_cast<std::uint32_t>(tree.subtrees_of(peer).size()));
  }
  const auto pieces = std::accumulate(pieces_of_.begin(), pieces_of_.end(), std::uint64_t{0});
  room_ = FloatBuffer(static_cast<Index>((pieces - pieces_of_[rank_]) * own), device);
  for (const TreeAddition& addition : additions_to_root(tree)) {
    additions_.push_back({addition.into, addition.from});
  }
}

std::uint64_t TreeExchange::own_elements(std::size_t bucket) const {
  std::uint64_t elements = 0;
  for (const IndexRange& range : buckets_[bucket][rank_]) elements += range.size();
  return elements;
}

Result<> TreeExchange::reduce(const Work& work) { return reduce(work, Until::done); }

Result<> TreeExchange::gather(const Work& work, std::span<const std::span<std::byte>> also) {
  return gather(work, also, Until::done);
}

Result<> TreeExchange::begin(const Work& work) {
  if (auto reduced = reduce(work, Until::begun); !reduced) return reduced;
  return gather(work, {}, Until::begun);
}

// Piece after piece, each range after range: so that the k-th send meets the k-th receive.
Result<> TreeExchange::reduce(const Work& work, Until until) {
  TUTTI_ASSERT(work.parts.size() == pieces_of_[rank_]);
  const Shares& shares = buckets_[work.bucket];
  transfers_.clear();
  float* room = room_.data();
  for (std::uint32_t peer = 0; peer < pieces_of_.size(); ++peer) {
    if (peer == rank_) continue;
    for (const std::span<float>& part : work.parts) {
      for (const IndexRange& range : shares[peer]) {
        transfers_.push_back(
            {Transfer::Direction::send, peer, bytes_of(part.data() + range.begin, range.size())});
      }
    }
    for (std::uint32_t i = 0; i < pieces_of_[peer]; ++i) {
      for (const IndexRange& range : shares[rank_]) {
        transfers_.push_back({Transfer::Direction::receive, peer, bytes_of(room, range.size())});
        room += range.size();
      }
    }
  }
  device_transfers_ = transfers_.size();
  auto exchanged = exchange(work.group, until);
  if (!exchanged) return exchanged;
  const bool behind = until == Until::begun && work.group.moves_device_memory();
  return sum_own_share(work, behind ? PieceSum::Queue::link : PieceSum::Queue::compute);
}

Result<> TreeExchange::sum_own_share(const Work& work, PieceSum::Queue queue) {
  const std::uint64_t share = own_elements(work.bucket);
  std::uint64_t done = 0;
  for (const IndexRange& range : buckets_[work.bucket][rank_]) {
    pieces_.clear();
    float* room = room_.data() + done;
    for (std::uint32_t peer = 0; peer < pieces_of_.size(); ++peer) {
      for (std::uint32_t i = 0; i < pieces_of_[peer]; ++i) {
        pieces_.push_back(peer == rank_ ? work.parts[i].data() + range.begin : room);
        if (peer != rank_) room += share;
      }
    }
    auto summed = sum_pieces(work, range, queue);
    if (!summed) return summed;
    done += range.size();
  }
  return {};
}

Result<> TreeExchange::sum_pieces(const Work& work, const IndexRange& range,
                                  PieceSum::Queue queue) {
  float* const sum = work.result.data() + range.begin;
  const auto count = static_cast<Index>(range.size());
  if (device_ != nullptr) {
    return device_->enqueue(PieceSum{pieces_, additions_, count, sum, queue});
  }
  const auto begin = static_cast<Index>(range.begin);
  const auto before = [](const AddPieces::Block& block, Index offset) {
    return block.begin < offset;
  };
  const auto in_range = [&](Index offset) {
    return std::lower_bound(work.blocks.begin(), work.blocks.end(), offset, before);
  };
  const auto first = in_range(begin);
  const auto last = in_range(begin + count);
  blocks_.clear();
  for (auto block = first; block != last; ++block) {
    blocks_.push_back({block->begin - begin, block->elements});
  }
  return add_pieces(work.ctx,
                    {.pieces = pieces_,
                     .additions = additions_,
                     .count = count,
                     .sum = sum,
                     .blocks = blocks_,
                     .squares = work.squares.subspan(
                         static_cast<std::size_t>(first - work.blocks.begin()), blocks_.size())});
}

Result<> TreeExchange::exchange(Communicator& group, Until until) {
  if (device_ != nullptr && !group.moves_device_memory()) return exchange_staged(group);
  return until == Until::begun ? group.begin(transfers_) : group.exchange(transfers_);
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

Result<> TreeExchange::gather(const Work& work, std::span<const std::span<std::byte>> also,
                              Until until) {
  const Shares& shares = buckets_[work.bucket];
  transfers_.clear();
  const auto move = [&](Transfer::Direction direction, std::uint32_t peer, std::uint32_t owner) {
    for (const IndexRange& range : shares[owner]) {
      transfers_.push_back(
          {direction, peer, bytes_of(work.result.data() + range.begin, range.size())});
    }
  };
  for (std::uint32_t peer = 0; peer < pieces_of_.size(); ++peer) {
    if (peer == rank_) continue;
    move(Transfer::Direction::send, peer, rank_);
    move(Transfer::Direction::receive, peer, peer);
  }
  device_transfers_ = transfers_.size();
  if (!also.empty()) add_notes(also);
  return exchange(work.group, until);
}

void TreeExchange::add_notes(std::span<const std::span<std::byte>> notes) {
  TUTTI_ASSERT(notes.size() == pieces_of_.size());
  for (std::uint32_t peer = 0; peer < pieces_of_.size(); ++peer) {
    if (peer == rank_) continue;
    if (!notes[rank_].empty()) {
      transfers_.push_back({Transfer::Direction::send, peer, notes[rank_]});
    }
    if (!notes[peer].empty()) {
      transfers_.push_back({Transfer::Direction::receive, peer, notes[peer]});
    }
  }
}

Result<> TreeExchange::tell(Communicator& group, std::span<const std::span<std::byte>> notes) {
  transfers_.clear();
  add_notes(notes);
  return group.exchange(transfers_);
}

Shares cut_bucket(std::span<const IndexRange> blocks, std::uint32_t ranks) {
  Shares shares(ranks);
  std::uint64_t elements = 0;
  for (const IndexRange& block : blocks) elements += block.size();
  std::uint64_t before = 0;
  for (const IndexRange& block : blocks) {
    std::vector<IndexRange>& own = shares[static_cast<std::size_t>(before * ranks / elements)];
    before += block.size();
    if (!own.empty() && own.back().end == block.begin) {
      own.back().end = block.end;
    } else {
      own.push_back(block);
    }
  }
  return shares;
}

Shares shares_between(std::span<const std::uint64_t> borders) {
  Shares shares(borders.size() - 1);
  for (std::size_t rank = 0; rank < shares.size(); ++rank) {
    const IndexRange own{borders[rank], borders[rank + 1]};
    if (!own.empty()) shares[rank].push_back(own);
  }
  return shares;
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
