#include "kernels/collective/collectives.h"

#include <string>

namespace tutti::kernels {

Result<> all_gather(Communicator& group, std::span<const std::span<std::byte>> blocks) {
  TUTTI_ASSERT(blocks.size() == group.size());
  const std::span<std::byte> own = blocks[group.rank()];
  std::vector<Transfer> transfers;
  transfers.reserve(2 * blocks.size());
  for (std::uint32_t peer = 0; peer < group.size(); ++peer) {
    if (peer == group.rank()) continue;
    if (!own.empty()) transfers.push_back({Transfer::Direction::send, peer, own});
    if (!blocks[peer].empty())
      transfers.push_back({Transfer::Direction::receive, peer, blocks[peer]});
  }
  return group.exchange(transfers);
}

Result<> all_to_all(Communicator& group, const AllToAll& blocks) {
  TUTTI_ASSERT(blocks.out.size() == group.size() && blocks.in.size() == group.size());
  std::vector<Transfer> transfers;
  transfers.reserve(2 * blocks.out.size());
  const auto add = [&](Transfer::Direction direction, std::uint32_t peer,
                       std::span<std::byte> bytes) {
    if (!bytes.empty()) transfers.push_back({direction, peer, bytes});
  };
  for (std::uint32_t peer = 0; peer < group.size(); ++peer) {
    if (peer == group.rank()) continue;
    add(Transfer::Direction::send, peer, blocks.out[peer]);
    add(Transfer::Direction::receive, peer, blocks.in[peer]);
  }
  return group.exchange(transfers);
}

Result<> broadcast(Communicator& group, std::uint32_t root, std::span<std::byte> bytes) {
  std::vector<Transfer> transfers;
  if (group.rank() != root) {
    transfers.push_back({Transfer::Direction::receive, root, bytes});
  } else {
    for (std::uint32_t peer = 0; peer < group.size(); ++peer) {
      if (peer != root) transfers.push_back({Transfer::Direction::send, peer, bytes});
    }
  }
  return group.exchange(transfers);
}

Result<Vote> exchange_votes(Communicator& group, const Vote& own, VoteRoom& room) {
  if (group.size() == 1) {
    auto alone = group.exchange({});
    return alone ? Result<Vote>(own) : std::move(alone).error();
  }
  room.votes.assign(group.size(), own);
  room.transfers.clear();
  const auto bytes_of = [&](std::uint32_t rank) {
    return std::as_writable_bytes(std::span(&room.votes[rank], 1));
  };
  for (std::uint32_t peer = 0; peer < group.size(); ++peer) {
    if (peer == group.rank()) continue;
    room.transfers.push_back({Transfer::Direction::send, peer, bytes_of(group.rank())});
    room.transfers.push_back({Transfer::Direction::receive, peer, bytes_of(peer)});
  }
  auto gathered = group.exchange(room.transfers);
  if (!gathered) return std::move(gathered).error();
  Vote combined{own.step, 0, 0};
  for (const Vote& vote : room.votes) {
    if (vote.step != own.step) {
      return Error{ErrorCode::corrupt, "a rank votes for step " + std::to_string(vote.step) +
                                           ", this one for step " + std::to_string(own.step)};
    }
    combined.flags |= vote.flags;
    combined.count += vote.count;
  }
  return combined;
}

Result<Vote> exchange_votes(Communicator& group, const Vote& own) {
  VoteRoom room;
  return exchange_votes(group, own, room);
}

}  // namespace tutti::kernels
