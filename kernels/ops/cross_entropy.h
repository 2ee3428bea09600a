// The loss of the next token straight from hidden states: logits = hidden weight^T in chunks of
// rows, never all at once.
//
//   hidden     [M, C]
//   weight     [V, C]     the head, or the tied embedding
//   hidden_rounded, weight_rounded   read in place of these, which give shapes then (rounded.h)
//   targets    [M]        0 .. V-1; `ignore`: this row has no target (loss 0, no gradient)
//   losses     [M]        log(sum(exp(logits))) - logits[target]; written
//   dhidden    [M, C]     written
//   dweight    [V, C]     chain over rows in order, continued from what it holds
//
// `padded` >= V says that weight and dweight have that many rows in memory, those from V on zero: a
// device whose products take whole tiles computes these columns too, and no number that anyone
// reads depends on them. They stay zero. The CPU leaves them out.
//
// With smoothing e (Szegedy et al. 2016) a target is (1 - e) of itself and e / V of every token.
// Gradients are those of the SUM of losses over rows with a target (DESIGN numerics), times
// `scale`, a power of two, for the range of fp16 (Micikevicius et al. 2018). On CPUs a probability
// below 2^-80 counts as 0 in them (decision 0103). loss_sum adds the losses in row order in double
// precision to what it holds, and target_count counts, so that micro-batches continue.
//
// The sum over V is an online softmax over blocks of kVocabularyBlock: 16 logical lanes and a fixed
// tree in each, rescaled when the maximum grows. So both forms of memory give the same bits:
//   rows     logits of `chunk` rows by V: three products; 0: 2 MB of them, but 256 rows at least
//            (51 MB for V = 50,257) and 1,024 at most
//   blocks   of `chunk` rows by kVocabularyBlock, twice: four products; nothing held depends on V
// Errors: invalid_argument (a target outside of V, too), unsupported (rounding.h, rounded.h):
// nothing written.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/ops/elementwise/rounded.h"
#include "kernels/tensor/matrix.h"
#include "kernels/tensor/op_context.h"
#include "protocol/base/result.h"

namespace tutti::kernels {

inline constexpr Index kVocabularyBlock = 4096;

struct LinearCrossEntropy {
  ConstMatrix hidden;
  ConstMatrix weight;
  std::span<const std::int32_t> targets;
  float* losses = nullptr;
  double* loss_sum = nullptr;            // null: not wanted
  std::int64_t* target_count = nullptr;  // null: not wanted
  Matrix dhidden = {};                   // null data: forward only
  Matrix dweight = {};                   // null data with dhidden given: a frozen head
  float smoothing = 0.0F;
  float scale = 1.0F;        // of the gradients, not of the losses
  std::int32_t ignore = -1;  // negative
  enum class Memory { rows, blocks } memory = Memory::rows;
  Index chunk = 0;
  Index padded = 0;  // 0: V
  ConstRoundedMatrix hidden_rounded = {};
  ConstRoundedMatrix weight_rounded = {};  // with rows up to `padded`, as weight
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
