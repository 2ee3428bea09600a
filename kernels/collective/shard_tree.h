// Who computes which samples, and the one order in which their gradients are added (DESIGN
// numerics, tree rule).
//
// The batch is cut into S shards, a power of two, whatever the number of ranks; shards are added
// pairwise in one balanced binary tree. A rank adds the maximal complete subtrees of its own
// shards:
//
//   S = 8, N = 3      {0,1} | {2,3} {4} | {5} {6,7}
//
// A shard without samples is skipped, not added: an inner node with one empty half is its other
// half.
//
// Threads: plain values.
#pragma once

#include <cstdint>
#include <vector>

#include "protocol/base/result.h"

namespace tutti::kernels {

// A half-open range of shards or samples.
struct IndexRange {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;

  bool empty() const { return begin == end; }
  std::uint64_t size() const { return end - begin; }
  bool operator==(const IndexRange&) const = default;
};

// The shards [index << level, (index + 1) << level).
struct TreeNode {
  std::uint32_t level = 0;
  std::uint64_t index = 0;

  IndexRange shards() const { return {index << level, (index + 1) << level}; }
  bool operator==(const TreeNode&) const = default;
};

class ShardTree {
 public:
  // Errors: invalid_argument, unless shards is a power of two, 1 <= ranks <= shards and batch >= 1.
  static Result<ShardTree> create(std::uint64_t shards, std::uint64_t batch, std::uint64_t ranks);

  std::uint64_t shards() const { return shards_; }
  std::uint64_t ranks() const { return ranks_; }

  // Shards floor(rS/N) .. floor((r+1)S/N)-1.
  IndexRange shards_of(std::uint64_t rank) const;
  // Samples floor(sB/S) .. floor((s+1)B/S)-1; maybe none.
  IndexRange samples_of(std::uint64_t shard) const;

  // The maximal complete subtrees of the rank's shards that hold samples, ascending. A rank alone
  // has the halves of the whole: the last addition is the exchange's, which looks at its sum.
  std::vector<TreeNode> subtrees_of(std::uint64_t rank) const;
  // The same into a vector whose room is used again; what it held is gone.
  void subtrees_of(std::uint64_t rank, std::vector<TreeNode>& found) const;

  bool has_samples(const TreeNode& node) const;
  TreeNode root() const;

 private:
  ShardTree(std::uint64_t shards, std::uint64_t batch, std::uint64_t ranks)
      : shards_(shards), batch_(batch), ranks_(ranks) {}

  std::uint64_t shards_;
  std::uint64_t batch_;
  std::uint64_t ranks_;
};

// `pieces[into] += pieces[from]`.
struct TreeAddition {
  std::uint32_t into = 0;
  std::uint32_t from = 0;

  bool operator==(const TreeAddition&) const = default;
};

// The additions, in order, that turn the subtrees of all ranks (concatenated in rank order:
// ascending shards) into the root, which ends in piece 0.
std::vector<TreeAddition> additions_to_root(const ShardTree& tree);

}  // namespace tutti::kernels
