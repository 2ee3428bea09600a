// a += b, element by element: residuals, and the tree rule's pairwise sum of shards.
//
//   a, b, out, parts   [n]   disjoint or identical
//
// One rounded addition per element. Errors: invalid_argument (lengths differ); nothing is written
// then.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/tensor/matrix.h"
#include "kernels/tensor/op_context.h"
#include "protocol/base/result.h"

namespace tutti::kernels {

// The arguments, as a device takes them.
struct AddInto {
  std::span<float> a;
  std::span<const float> b;
};

// sum = the root of a tree of additions over `pieces`, element by element: pieces[into] +=
// pieces[from] in the order given ends in piece 0 (kernels/collective/shard_tree.h). Device only;
// on the host the exchange adds in cache-sized tiles. sum may be pieces[0]. Up to kPassPieces are
// one pass and are not written; of more, pieces hold sums of others between two passes.
struct PieceSum {
  struct Addition {
    std::uint32_t into = 0;
    std::uint32_t from = 0;
  };
  static constexpr std::size_t kPassPieces = 32;
  // link: behind the transfers that a group began on the device before, ahead of those after it
  // (Communicator::begin).
  enum class Queue { compute, link };

  std::span<float* const> pieces;  // the list is host memory, as is that of additions
  std::span<const Addition> additions;
  Index count = 0;
  float* sum = nullptr;
  Queue queue = Queue::compute;
};

Result<> add_into(const OpContext& ctx, std::span<float> a, std::span<const float> b);

// The tree rule in one pass: part i is shard i, out = ((0 + 1) + (2 + 3)) + ((4 + 5) + ...), each
// sum one rounded addition. A part without elements is a shard that does not exist and adds
// nothing; without any, out is zero. `out` may be one of the parts.
inline constexpr std::size_t kTreePartsMax = 64;
struct TreeSum {
  std::span<const std::span<const float>> parts;  // a power of two of them
  std::span<float> out;
};
Result<> tree_sum(const OpContext& ctx, const TreeSum& args);

}  // namespace tutti::kernels
