// Adds the gradients of all shards in tree order, over the ranks of a group, and leaves the sum in
// every rank.
//
//   1. each rank sends the shares of its subtree sums to their owners          (reduce)
//   2. the owner adds the pieces of its share in tree order
//   3. the owners' shares are gathered in all ranks                            (gather)
//
// On the host, 2 sums the squares of the share too, in the same pass; between 2 and 3 the caller
// may look at its own share (norm, finiteness) and send what it found along with it. The same bits
// for any number of ranks and any cut into buckets: only the tree over shards decides the order.
//
// An arena is exchanged as one bucket, or in several, each as soon as its gradients are there
// (begin): where the group moves device memory, all three steps run beside what the device computes
// meanwhile, one bucket after the other.
//
// Ownership: buffers belong to the caller; the exchange keeps room for the pieces of one share from
// other ranks, made once. Threads: one; the context's threads add. Units: elements. Errors: the
// communicator's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/collective/communicator.h"
#include "kernels/collective/shard_tree.h"
#include "kernels/ops/add.h"
#include "kernels/ops/gradient_norm.h"
#include "kernels/tensor/buffer.h"

namespace tutti::kernels {

// The owners of one bucket: by rank, ascending ranges of the arena, on the grid; maybe none.
using Shares = std::vector<std::vector<IndexRange>>;

class TreeExchange {
 public:
  // The buckets are disjoint. With a device, all spans are its memory: sums are made there, and
  // transfers go through host memory where the group cannot take a device's.
  TreeExchange(const ShardTree& tree, std::uint32_t rank, std::vector<Shares> buckets,
               Device* device = nullptr);

  // One bucket of all subtree sums of this rank. `parts[i]` is that of subtrees_of(rank)[i] over
  // the whole arena and is used up; `result` may be parts[0].
  struct Work {
    const OpContext& ctx;
    Communicator& group;
    std::size_t bucket = 0;
    std::span<const std::span<float>> parts;
    std::span<float> result;
    // Of the share on the host: blocks of the grid, by offset in the arena, and where the sums of
    // their squares go (add_pieces). Empty: not wanted.
    std::span<const AddPieces::Block> blocks = {};
    std::span<double> squares = {};
  };

  // Fills the own share of `result` with the sum over all shards, and `squares`.
  Result<> reduce(const Work& work);

  // Fills the other shares of `result`. `also[r]` travels with those of r: sent from this rank,
  // filled from the others. `also` may be empty.
  Result<> gather(const Work& work, std::span<const std::span<std::byte>> also);

  // Both, begun only: `result` is whole after the group's finish(). All ranks begin their buckets
  // in the same order.
  Result<> begin(const Work& work);

  // What travels with no share.
  Result<> tell(Communicator& group, std::span<const std::span<std::byte>> notes);

  std::size_t buckets() const { return buckets_.size(); }

 private:
  enum class Until { done, begun };

  Result<> reduce(const Work& work, Until until);
  Result<> gather(const Work& work, std::span<const std::span<std::byte>> also, Until until);
  void add_notes(std::span<const std::span<std::byte>> notes);
  Result<> exchange(Communicator& group, Until until);
  Result<> exchange_staged(Communicator& group);
  Result<> sum_own_share(const Work& work, PieceSum::Queue queue);
  Result<> sum_pieces(const Work& work, const IndexRange& range, PieceSum::Queue queue);
  std::uint64_t own_elements(std::size_t bucket) const;

  std::uint32_t rank_;
  std::vector<Shares> buckets_;
  std::vector<std::uint32_t> pieces_of_;  // by rank: how many subtrees it sends
  std::vector<PieceSum::Addition> additions_;
  Device* device_;
  FloatBuffer room_;               // the own shares of other ranks' pieces, one after the other
  std::vector<std::byte> staged_;  // device memory on its way
  std::vector<Transfer> transfers_;
  std::size_t device_transfers_ = 0;  // the first so many are device memory, if there is a device
  std::vector<float*> pieces_;
  std::vector<AddPieces::Block> blocks_;  // of one range, from its begin
};

// Consecutive blocks of the grid, cut into near equal shares.
Shares cut_bucket(std::span<const IndexRange> blocks, std::uint32_t ranks);

// The whole arena as one bucket, rank r's share from border r to the next.
Shares shares_between(std::span<const std::uint64_t> borders);

// N + 1 chunk borders that cut the arena near equal parts, only where a grid block begins. `starts`
// are the offsets of all blocks, ascending, the first 0.
std::vector<std::uint64_t> chunk_borders(std::span<const std::uint64_t> starts,
                                         std::uint64_t elements, std::uint32_t ranks);

}  // namespace tutti::kernels
