// Collectives of one group: gather, broadcast, all-to-all, and the vote that ends a step. None of
// them adds floating-point numbers.
//
// Every rank calls them in the same order with sizes that fit each other. Blocks may be memory of
// the rank's device where the group moves it. Errors are the communicator's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/collective/communicator.h"

namespace tutti::kernels {

// The blocks of all ranks, in every rank: `blocks[r]` is filled from rank r, and blocks[own rank]
// is what is sent. Blocks may differ in length (each length is known to all) and may be empty.
Result<> all_gather(Communicator& group, std::span<const std::span<std::byte>> blocks);

// Block r of `out` goes to rank r, whose `in` has it as the block of this rank: what a rank sends
// to another is as long as what that one expects, and may be empty. What a rank has for itself
// stays where it is: the own blocks are not looked at. `in` overlaps nothing.
struct AllToAll {
  std::span<const std::span<std::byte>> out;
  std::span<const std::span<std::byte>> in;
};
Result<> all_to_all(Communicator& group, const AllToAll& blocks);

// `bytes` of `root`, in every rank.
Result<> broadcast(Communicator& group, std::uint32_t root, std::span<std::byte> bytes);

// What a rank says when it has done its part. Flags are OR-ed, counts are added; integers, so that
// no order matters.
struct Vote {
  std::uint64_t step = 0;  // must be the same in all ranks
  std::uint64_t flags = 0;
  std::uint64_t count = 0;

  bool operator==(const Vote&) const = default;
};

// What a vote is exchanged in: who keeps it votes again without asking for memory.
struct VoteRoom {
  std::vector<Vote> votes;
  std::vector<Transfer> transfers;
};

// The combined vote once every rank has voted; a barrier. Errors: corrupt, if the ranks are not at
// one step.
Result<Vote> exchange_votes(Communicator& group, const Vote& own, VoteRoom& room);
Result<Vote> exchange_votes(Communicator& group, const Vote& own);

}  // namespace tutti::kernels
