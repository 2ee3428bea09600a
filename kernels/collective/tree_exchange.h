// Adds the gradients of all shards in tree order, over the ranks of a group, and leaves the sum in
// every rank.
//
//   1. each rank sends every chunk of its subtree sums to that chunk's owner     (reduce_own_chunk)
//   2. the owner adds the pieces of its chunk in tree order
//   3. the owners' chunks are gathered in all ranks                              (gather_chunks)
//
// Between 2 and 3 the caller may look at its own chunk (norm, finiteness) and send what it found
// along with it. The same bits for any number of ranks: only the tree over shards decides the
// order.
//
// Ownership: buffers belong to the caller; the exchange keeps room for the pieces of one chunk from
// other ranks, made once. Threads: one. Units: elements. Errors: the communicator's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/collective/communicator.h"
#include "kernels/collective/shard_tree.h"
#include "kernels/ops/add.h"
#include "kernels/tensor/buffer.h"

namespace tutti::kernels {

class TreeExchange {
 public:
  // Chunk r is [borders[r], borders[r + 1]); borders lie on the grid, ascend, begin at 0 and end at
  // the arena's size.
  // With a device, all spans are its memory: sums are made there, and transfers go through host
  // memory where the group cannot take a device's.
  TreeExchange(const ShardTree& tree, std::uint32_t rank, std::vector<std::uint64_t> borders,
               Device* device = nullptr);

  // Fills result[own chunk] with the sum over all shards. `parts[i]` is the sum of
  // subtrees_of(rank)[i] over the whole arena and is used up; `result` may be parts[0].
  Result<> reduce_own_chunk(Communicator& group, std::span<const std::span<float>> parts,
                            std::span<float> result);

  // Fills the other chunks of `result`. `also[r]` travels with chunk r: sent from this rank, filled
  // from the others.
  Result<> gather_chunks(Communicator& group, std::span<float> result,
                         std::span<const std::span<std::byte>> also);

  IndexRange own_chunk() const { return {borders_[rank_], borders_[rank_ + 1]}; }

 private:
  Result<> exchange(Communicator& group);
  Result<> exchange_staged(Communicator& group);
  Result<> sum_pieces(float* sum, std::uint64_t count);

  std::uint32_t rank_;
  std::vector<std::uint64_t> borders_;
  std::vector<std::uint32_t> pieces_of_;  // by rank: how many subtrees it sends
  std::vector<TreeAddition> additions_;
  Device* device_;
  FloatBuffer room_;  // the pieces of other ranks, one after the other
  std::vector<PieceSum::Addition> device_additions_;
  std::vector<std::byte> staged_;  // device memory on its way
  std::vector<Transfer> transfers_;
  std::size_t device_transfers_ = 0;  // the first so many are device memory, if there is a device
  std::vector<float*> pieces_;
};

// N + 1 chunk borders that cut the arena near equal parts, only where a grid block begins. `starts`
// are the offsets of all blocks, ascending, the first 0.
std::vector<std::uint64_t> chunk_borders(std::span<const std::uint64_t> starts,
                                         std::uint64_t elements, std::uint32_t ranks);

}  // namespace tutti::kernels
