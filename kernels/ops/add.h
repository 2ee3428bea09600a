// a += b, element by element: residuals, and the tree rule's pairwise sum of shards.
//
//   a, b   [n]   disjoint or identical
//
// One rounded addition per element. Errors: invalid_argument (lengths differ); nothing is written
// then.
#pragma once

#include <span>

#include "kernels/tensor/op_context.h"
#include "protocol/base/result.h"

namespace tutti::kernels {

// The arguments, as a device takes them.
struct AddInto {
  std::span<float> a;
  std::span<const float> b;
};

Result<> add_into(const OpContext& ctx, std::span<float> a, std::span<const float> b);

}  // namespace tutti::kernels
