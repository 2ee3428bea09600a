// Collectives of one group: gather, broadcast, and the vote that ends a step. None of them adds
// floating-point numbers.
//
// Every rank calls them in the same order with the same sizes. Errors are the communicator's.
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

// The combined vote once every rank has voted; a barrier. Errors: corrupt, if the ranks are not at
// one step.
Result<Vote> exchange_votes(Communicator& group, const Vote& own);

}  // namespace tutti::kernels
