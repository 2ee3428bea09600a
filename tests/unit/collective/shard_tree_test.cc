#include "kernels/collective/shard_tree.h"

#include <catch2/catch.hpp>

namespace tutti::kernels {
namespace {

ShardTree make_tree(std::uint64_t shards, std::uint64_t batch, std::uint64_t ranks) {
  auto tree = ShardTree::create(shards, batch, ranks);
  REQUIRE(tree.ok());
  return *tree;
}

TEST_CASE("shard tree: three ranks and eight shards give the subtrees of the design") {
  const ShardTree tree = make_tree(8, 64, 3);
  CHECK(tree.subtrees_of(0) == std::vector<TreeNode>{{1, 0}});
  CHECK(tree.subtrees_of(1) == std::vector<TreeNode>{{1, 1}, {0, 4}});
  CHECK(tree.subtrees_of(2) == std::vector<TreeNode>{{0, 5}, {1, 3}});
  CHECK(additions_to_root(tree) == std::vector<TreeAddition>{{0, 1}, {2, 3}, {2, 4}, {0, 2}});
}

TEST_CASE("shard tree: a rank alone has two halves, or its only shard") {
  const ShardTree tree = make_tree(8, 64, 1);
  CHECK(tree.subtrees_of(0) == std::vector<TreeNode>{{2, 0}, {2, 1}});
  CHECK(additions_to_root(tree) == std::vector<TreeAddition>{{0, 1}});
  CHECK(make_tree(8, 1, 1).subtrees_of(0) == std::vector<TreeNode>{{2, 1}});
  CHECK(make_tree(1, 4, 1).subtrees_of(0) == std::vector<TreeNode>{{0, 0}});
}

TEST_CASE("shard tree: every sample belongs to exactly one shard, and every shard to one rank") {
  for (std::uint64_t batch : {1, 3, 5, 8, 64}) {
    for (std::uint64_t ranks = 1; ranks <= 8; ++ranks) {
      const ShardTree tree = make_tree(8, batch, ranks);
      std::uint64_t next_sample = 0;
      std::uint64_t next_shard = 0;
      for (std::uint64_t rank = 0; rank < ranks; ++rank) {
        const IndexRange shards = tree.shards_of(rank);
        REQUIRE(shards.begin == next_shard);
        next_shard = shards.end;
        for (std::uint64_t shard = shards.begin; shard < shards.end; ++shard) {
          REQUIRE(tree.samples_of(shard).begin == next_sample);
          next_sample = tree.samples_of(shard).end;
        }
      }
      CHECK(next_shard == 8);
      CHECK(next_sample == batch);
    }
  }
}

TEST_CASE("shard tree: shards without samples are skipped") {
  const ShardTree tree = make_tree(8, 3, 4);  // samples in shards 2, 5 and 7
  CHECK(tree.subtrees_of(0).empty());
  CHECK(tree.subtrees_of(1) == std::vector<TreeNode>{{1, 1}});
  CHECK(tree.subtrees_of(2) == std::vector<TreeNode>{{1, 2}});
  CHECK(tree.subtrees_of(3) == std::vector<TreeNode>{{1, 3}});
  CHECK(additions_to_root(tree) == std::vector<TreeAddition>{{1, 2}, {0, 1}});
}

TEST_CASE("shard tree: counts that do not fit are refused") {
  CHECK(ShardTree::create(6, 8, 1).error().code == ErrorCode::invalid_argument);
  CHECK(ShardTree::create(4, 8, 5).error().code == ErrorCode::invalid_argument);
  CHECK(ShardTree::create(4, 8, 0).error().code == ErrorCode::invalid_argument);
  CHECK(ShardTree::create(4, 0, 1).error().code == ErrorCode::invalid_argument);
}

}  // namespace
}  // namespace tutti::kernels
