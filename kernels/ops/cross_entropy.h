// The loss of the next token straight from hidden states: logits = hidden weight^T in chunks of
// rows, never all at once.
//
//   hidden     [M, C]
//   weight     [V, C]     the head, or the tied embedding
//   targets    [M]        0 .. V-1; -1: this row has no target (loss 0, no gradient)
//   losses     [M]        log(sum(exp(logits))) - logits[target]; written
//   dhidden    [M, C]     written
//   dweight    [V, C]     chain over rows in order, continued from what it holds
//
// Gradients are those of the SUM of losses over rows with a target: no division by a count (DESIGN
// numerics). loss_sum adds the losses in row order in double precision to what it holds, and
// target_count counts, so that micro-batches continue. Sums over V use 16 logical lanes and a fixed
// tree.
// Errors: invalid_argument (also a target outside of -1 .. V-1); nothing is written then.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/tensor/matrix.h"
#include "kernels/tensor/op_context.h"
#include "protocol/base/result.h"

namespace tutti::kernels {

struct LinearCrossEntropy {
  ConstMatrix hidden;
  ConstMatrix weight;
  std::span<const std::int32_t> targets;
  float* losses = nullptr;
  double* loss_sum = nullptr;            // null: not wanted
  std::int64_t* target_count = nullptr;  // null: not wanted
  Matrix dhidden = {};                   // null data: forward only
  Matrix dweight = {};                   // null data with dhidden given: a frozen head
};
Result<> linear_cross_entropy(const OpContext& ctx, const LinearCrossEntropy& args);

// The arguments of log_softmax, as a device takes them.
struct LogSoftmax {
  ConstMatrix x;
  Matrix output;
};

// output[m, v] = x[m, v] - log(sum(exp(x[m, :]))); output may be x.
Result<> log_softmax(const OpContext& ctx, ConstMatrix x, Matrix output);

}  // namespace tutti::kernels
