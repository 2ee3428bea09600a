// Dropout in a decoder (Srivastava et al. 2014): of the embeddings, and of what each layer's
// attention and feed-forward part add to the residual stream, where Radford et al. 2019 have it.
//
// What is dropped is a function of seed, place in the model, and the row's logical index and
// column, so no mask is kept: backward and a layer that is run again draw it anew, and shards,
// micro-batches, ranks and resumes are free (kernels/ops/elementwise/dropout.h).
//
// Errors: check_dropout: invalid_argument (a rate outside of [0, 1), or too near to 1 to keep
// anything); drop: a refused argument is a broken invariant (must, layer.h).
#pragma once

#include <cstdint>

#include "kernels/tensor/matrix.h"
#include "kernels/tensor/op_context.h"
#include "protocol/base/result.h"

namespace tutti::models {

struct Dropout {
  double rate = 0;  // 0: nothing is dropped
  std::uint64_t seed = 0;
  // Of a batch's first row among all rows that the run reads, sample after sample; the others
  // follow it.
  std::uint64_t first_row = 0;
};

Result<> check_dropout(const Dropout& dropout);

struct DropoutPlace {
  enum class Of : std::uint8_t { embeddings, attention, feed_forward };
  Of of = Of::embeddings;
  std::uint32_t layer = 0;
};

// x -> y, which may be x; forward, and backward over gradients. Of a rate above 0.
void drop(const kernels::OpContext& ctx, const Dropout& dropout, const DropoutPlace& place,
          kernels::ConstMatrix x, kernels::Matrix y);

}  // namespace tutti::models
