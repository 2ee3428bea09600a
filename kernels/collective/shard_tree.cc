#include "kernels/collective/shard_tree.h"

#include <algorithm>
#include <bit>
#include <optional>
#include <string>

namespace tutti::kernels {
namespace {

TreeNode half(const TreeNode& node, std::uint64_t which) {
  return {node.level - 1, 2 * node.index + which};
}

void collect_subtrees(const ShardTree& tree, const TreeNode& node, const IndexRange& owned,
                      std::vector<TreeNode>& found) {
  const IndexRange covered = node.shards();
  if (covered.end <= owned.begin || covered.begin >= owned.end || !tree.has_samples(node)) return;
  const bool whole = tree.ranks() == 1 && node.level > 0 && covered.size() == tree.shards();
  if (covered.begin >= owned.begin && covered.end <= owned.end && !whole) {
    found.push_back(node);
    return;
  }
  collect_subtrees(tree, half(node, 0), owned, found);
  collect_subtrees(tree, half(node, 1), owned, found);
}

// Plans the sum of `node`; returns the piece that will hold it, or none if it holds no samples.
std::optional<std::uint32_t> plan_sum(const ShardTree& tree, const TreeNode& node,
                                      const std::vector<TreeNode>& pieces,
                                      std::vector<TreeAddition>& plan) {
  if (!tree.has_samples(node)) return std::nullopt;
  const auto piece = std::find(pieces.begin(), pieces.end(), node);
  if (piece != pieces.end()) return static_cast<std::uint32_t>(piece - pieces.begin());
  const auto left = plan_sum(tree, half(node, 0), pieces, plan);
  const auto right = plan_sum(tree, half(node, 1), pieces, plan);
  if (!left || !right) return left ? left : right;
  plan.push_back({*left, *right});
  return left;
}

}  // namespace

Result<ShardTree> ShardTree::create(std::uint64_t shards, std::uint64_t batch,
                                    std::uint64_t ranks) {
  if (!std::has_single_bit(shards)) {
    return Error{ErrorCode::invalid_argument,
                 std::to_string(shards) + " shards: not a power of two"};
  }
  if (ranks < 1 || ranks > shards) {
    return Error{ErrorCode::invalid_argument,
                 std::to_string(ranks) + " ranks for " + std::to_string(shards) + " shards"};
  }
  if (batch < 1) return Error{ErrorCode::invalid_argument, "a batch without samples"};
  return ShardTree(shards, batch, ranks);
}

IndexRange ShardTree::shards_of(std::uint64_t rank) const {
  return {rank * shards_ / ranks_, (rank + 1) * shards_ / ranks_};
}

IndexRange ShardTree::samples_of(std::uint64_t shard) const {
  return {shard * batch_ / shards_, (shard + 1) * batch_ / shards_};
}

bool ShardTree::has_samples(const TreeNode& node) const {
  const IndexRange covered = node.shards();
  return covered.begin * batch_ / shards_ != covered.end * batch_ / shards_;
}

TreeNode ShardTree::root() const {
  return {static_cast<std::uint32_t>(std::countr_zero(shards_)), 0};
}

std::vector<TreeNode> ShardTree::subtrees_of(std::uint64_t rank) const {
  std::vector<TreeNode> found;
  subtrees_of(rank, found);
  return found;
}

void ShardTree::subtrees_of(std::uint64_t rank, std::vector<TreeNode>& found) const {
  found.clear();
  collect_subtrees(*this, root(), shards_of(rank), found);
}

std::vector<TreeAddition> additions_to_root(const ShardTree& tree) {
  std::vector<TreeNode> pieces;
  for (std::uint64_t rank = 0; rank < tree.ranks(); ++rank) {
    const auto subtrees = tree.subtrees_of(rank);
    pieces.insert(pieces.end(), subtrees.begin(), subtrees.end());
  }
  std::vector<TreeAddition> plan;
  const auto root = plan_sum(tree, tree.root(), pieces, plan);
  TUTTI_ASSERT(root == 0U);  // every left half comes before its right half
  return plan;
}

}  // namespace tutti::kernels
