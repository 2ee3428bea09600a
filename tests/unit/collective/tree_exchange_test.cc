#include "kernels/collective/tree_exchange.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <mutex>

#include "kernels/collective/collectives.h"
#include "protocol/base/rng.h"
#include "tests/unit/collective/rank_threads.h"

namespace tutti::kernels {
namespace {

constexpr std::uint64_t kElements = 20'000;
constexpr std::uint64_t kBlock = 3'000;

// Values of very different sizes, so that another order of addition shows in the bits.
std::vector<float> shard_gradient(std::uint64_t shard) {
  Rng rng(shard + 1);
  std::vector<float> values(kElements);
  for (float& value : values) {
    value = static_cast<float>((rng.uniform() - 0.5) * static_cast<double>(1ULL << rng.below(20)));
  }
  return values;
}

void add_to(std::vector<float>& into, const std::vector<float>& from) {
  for (std::size_t i = 0; i < into.size(); ++i) into[i] += from[i];
}

// The sum of a node's shards by the definition.
std::vector<float> sum_of(const ShardTree& tree, const TreeNode& node) {
  if (node.level == 0) return shard_gradient(node.index);
  const TreeNode left{node.level - 1, 2 * node.index};
  const TreeNode right{node.level - 1, 2 * node.index + 1};
  if (!tree.has_samples(left)) return sum_of(tree, right);
  std::vector<float> sum = sum_of(tree, left);
  if (tree.has_samples(right)) add_to(sum, sum_of(tree, right));
  return sum;
}

std::vector<std::uint64_t> block_starts() {
  std::vector<std::uint64_t> starts;
  for (std::uint64_t start = 0; start < kElements; start += kBlock) starts.push_back(start);
  return starts;
}

// The last blocks first, then every other one of the first four.
std::vector<Shares> cut_in_three(std::uint32_t ranks) {
  std::vector<std::vector<IndexRange>> blocks(3);
  for (const std::uint64_t start : block_starts()) {
    const std::size_t bucket = start >= 4 * kBlock ? 0 : (start / kBlock % 2 == 0 ? 1 : 2);
    blocks[bucket].push_back({start, std::min(start + kBlock, kElements)});
  }
  std::vector<Shares> buckets;
  for (const auto& one : blocks) buckets.push_back(cut_bucket(one, ranks));
  return buckets;
}

// The blocks of a share, each with a gap behind it, as padding is.
std::vector<AddPieces::Block> blocks_of(const std::vector<IndexRange>& share) {
  std::vector<AddPieces::Block> blocks;
  for (const std::uint64_t start : block_starts()) {
    const auto owns = [&](const IndexRange& range) {
      return start >= range.begin && start < range.end;
    };
    if (!std::any_of(share.begin(), share.end(), owns)) continue;
    const auto elements = std::min(kBlock, kElements - start);
    blocks.push_back({static_cast<Index>(start), static_cast<Index>(elements) - 7});
  }
  return blocks;
}

// Of the share, by an op of its own, are the sums that the exchange made in its additions.
void check_squares(const OpContext& ctx, const std::vector<float>& result,
                   const std::vector<AddPieces::Block>& blocks,
                   const std::vector<double>& squares) {
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    double expected = 0;
    REQUIRE(square_sums(ctx,
                        std::span(result).subspan(static_cast<std::size_t>(blocks[i].begin),
                                                  static_cast<std::size_t>(blocks[i].elements)),
                        std::span(&expected, 1)));
    CHECK(squares[i] == expected);
  }
}

// Every rank's result, after checking that what travels along arrives too.
std::vector<std::vector<float>> reduce(std::uint64_t batch, std::uint32_t ranks,
                                       const std::vector<Shares>& buckets) {
  const ShardTree tree = *ShardTree::create(8, batch, ranks);
  std::vector<std::vector<float>> results(ranks);
  std::mutex mutex;
  test::run_ranks({.size = ranks}, [&](std::unique_ptr<Communicator> group) {
    const std::uint32_t rank = group->rank();
    std::vector<std::vector<float>> sums;
    for (const TreeNode& node : tree.subtrees_of(rank)) sums.push_back(sum_of(tree, node));
    std::vector<std::span<float>> parts(sums.begin(), sums.end());
    std::vector<float> result(kElements, -1.0F);
    TreeExchange exchange(tree, rank, buckets);
    ThreadPool pool(1 + static_cast<int>(rank));
    const OpContext ctx{&pool};
    const std::vector<AddPieces::Block> blocks = blocks_of(buckets[0][rank]);
    std::vector<double> squares(blocks.size(), -1.0);
    std::vector<std::uint64_t> notes(ranks);
    notes[rank] = 100 + rank;
    std::vector<std::span<std::byte>> also;
    for (auto& note : notes) also.push_back(std::as_writable_bytes(std::span(&note, 1)));
    Result<> reduced = {};
    if (buckets.size() == 1) {
      reduced = exchange.reduce({ctx, *group, 0, parts, result, blocks, squares});
      if (reduced) reduced = exchange.gather({ctx, *group, 0, parts, result}, also);
    } else {
      for (std::size_t bucket = 0; reduced && bucket < buckets.size(); ++bucket) {
        reduced = exchange.begin({ctx, *group, bucket, parts, result});
      }
      if (reduced) reduced = group->finish();
      if (reduced) reduced = exchange.tell(*group, also);
    }
    const std::lock_guard lock(mutex);
    CHECK(reduced.ok());
    if (buckets.size() == 1) check_squares(ctx, result, blocks, squares);
    for (std::uint32_t peer = 0; peer < ranks; ++peer) CHECK(notes[peer] == 100 + peer);
    results[rank] = result;
  });
  return results;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST_CASE(
    "tree exchange: the sum has the same bits for one to four ranks, in one bucket or three, empty "
    "shards or not") {
  for (std::uint64_t batch : {16, 5, 1}) {
    const ShardTree tree = *ShardTree::create(8, batch, 1);
    const std::vector<float> expected = sum_of(tree, tree.root());
    for (std::uint32_t ranks = 1; ranks <= 4; ++ranks) {
      CAPTURE(batch, ranks);
      const Shares whole = shares_between(chunk_borders(block_starts(), kElements, ranks));
      for (const auto& result : reduce(batch, ranks, {whole})) CHECK(same_bits(result, expected));
      for (const auto& result : reduce(batch, ranks, cut_in_three(ranks))) {
        CHECK(same_bits(result, expected));
      }
    }
  }
}

TEST_CASE("tree exchange: another order of addition would show in the bits") {
  std::vector<float> in_order = shard_gradient(0);
  for (std::uint64_t shard = 1; shard < 8; ++shard) add_to(in_order, shard_gradient(shard));
  const ShardTree tree = *ShardTree::create(8, 8, 1);
  CHECK_FALSE(same_bits(in_order, sum_of(tree, tree.root())));
}

TEST_CASE("cut bucket: near equal shares of whole blocks, neighbours joined") {
  const std::vector<IndexRange> blocks = {{100, 200}, {200, 300}, {500, 600}, {600, 650}};
  CHECK(cut_bucket(blocks, 1) == Shares{{{100, 300}, {500, 650}}});
  CHECK(cut_bucket(blocks, 2) == Shares{{{100, 300}}, {{500, 650}}});
  CHECK(cut_bucket(std::span(blocks).first(1), 3) == Shares{{{100, 200}}, {}, {}});
}

TEST_CASE("chunk borders: they lie on block starts and cover the arena") {
  CHECK(chunk_borders(block_starts(), kElements, 2) ==
        std::vector<std::uint64_t>{0, 12'000, kElements});
  const std::vector<std::uint64_t> one_block = {0};
  CHECK(chunk_borders(one_block, 500, 3) == std::vector<std::uint64_t>{0, 500, 500, 500});
}

TEST_CASE("votes: flags are joined and counts added, and ranks at different steps are refused") {
  test::run_ranks({.size = 3}, [](std::unique_ptr<Communicator> group) {
    const std::uint32_t rank = group->rank();
    const auto vote =
        exchange_votes(*group, {.step = 4, .flags = std::uint64_t{1} << rank, .count = rank});
    const auto other = exchange_votes(*group, {.step = rank == 0 ? 5U : 6U});
    static std::mutex mutex;
    const std::lock_guard lock(mutex);
    REQUIRE(vote.ok());
    CHECK(*vote == Vote{4, 7, 3});
    CHECK(other.error().code == ErrorCode::corrupt);
  });
}

TEST_CASE("broadcast: every rank gets the root's bytes") {
  test::run_ranks({.size = 3}, [](std::unique_ptr<Communicator> group) {
    std::uint64_t value = group->rank() == 1 ? 42 : 0;
    const auto sent = broadcast(*group, 1, std::as_writable_bytes(std::span(&value, 1)));
    static std::mutex mutex;
    const std::lock_guard lock(mutex);
    CHECK(sent.ok());
    CHECK(value == 42);
  });
}

}  // namespace
}  // namespace tutti::kernels
