#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/loss/cross_entropy.cc"
#include <hwy/foreach_target.h>

#include <cmath>
#include <limits>
#include <string>

#include "kernels/cpu/caches/streamed-inl.h"
#include "kernels/cpu/loss/row_log_sum.h"
#include "kernels/cpu/row_split.h"
#include "kernels/cpu/sums-inl.h"
#include "kernels/ops/cross_entropy.h"
#include "kernels/ops/math.h"
#include "kernels/ops/product.h"
#include "kernels/tensor/device.h"

#ifndef TUTTI_CROSS_ENTROPY_ROWS
#define TUTTI_CROSS_ENTROPY_ROWS
namespace tutti::kernels {

// A row's softmax as far as it has been read.
struct LogSum {
  float top = 0.0F;     // the largest logit
  float total = 0.0F;   // sum of exp(logit - top)
  float chosen = 0.0F;  // the target's logit
  float sum = 0.0F;     // of all logits; smoothing only
};

// Rows [first, first + logits.rows) and tokens [token, token + logits.columns) of the vocabulary.
struct LogitsPart {
  const LinearCrossEntropy* args = nullptr;
  Index first = 0;
  Index token = 0;
  Matrix logits;
  LogSum* sums = nullptr;  // [rows]
  float* tops = nullptr;   // [rows][blocks]: the top when the block was read
  Index blocks = 0;        // of the widest part

  std::int32_t target(Index row) const {
    return args->targets[static_cast<std::size_t>(first + row)];
  }
  bool counts(Index row) const { return target(row) != args->ignore; }
};

}  // namespace tutti::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

HWY_INLINE float exp_of(float x) {
  alignas(64) float lanes[kLanes];
  store(exp(splat(x)), lanes);
  return lanes[0];
}

// Of a block of minus infinities all weights are zeros, not what infinities differ by.
HWY_INLINE float weigh_block(const float* x, float top, float* weights, Index width) {
  return weigh(x, std::max(top, std::numeric_limits<float>::lowest()), weights, width);
}

// The top behind a block: its largest logit, too, if that is no number.
HWY_INLINE float top_behind(float top, float block_top) {
  return block_top <= top ? top : block_top;
}

// Takes one block of a row's logits, the largest of which is given, into its softmax; they become
// weights where those are wanted.
HWY_INLINE void take_block(const float* x, float block_top, float* weights, Index width,
                           LogSum& sum) {
  if (!(block_top <= sum.top)) sum.total *= exp_of(sum.top - block_top);
  sum.top = top_behind(sum.top, block_top);
  sum.total += weigh_block(x, sum.top, weights, width);
}

template <class Row>
HWY_INLINE void for_rows(const OpContext& ctx, const Matrix& logits, const Row& row_body) {
  ctx.pool->parallel_for(logits.rows, rows_in_piece(logits.columns),
                         [&](int, Index begin, Index end) {
                           for (Index row = begin; row < end; ++row) row_body(row);
                         });
}

// The first reading; logits become weights under the top of their block where gradients are wanted.
void read_logits(const OpContext& ctx, const LogitsPart& part) {
  const bool backward = static_cast<bool>(part.args->dhidden);
  for_rows(ctx, part.logits, [&](Index row) {
    if (!part.counts(row)) return;
    LogSum& sum = part.sums[row];
    float* const x = part.logits.row(row);
    const Index target = part.target(row) - part.token;
    if (target >= 0 && target < part.logits.columns) sum.chosen = x[target];
    for (Index i = 0; i < part.logits.columns; i += kVocabularyBlock) {
      const Index width = std::min(kVocabularyBlock, part.logits.columns - i);
      if (part.args->smoothing > 0.0F) {
        Lanes all = zero();
        each_lanes(width, [&](Index c, auto some) { all = all + load(x + i + c, some); });
        sum.sum += sum_lanes(all);
      }
      take_block(x + i, largest_of(x + i, width), backward ? x + i : nullptr, width, sum);
      part.tops[row * part.blocks + i / kVocabularyBlock] = sum.top;
    }
  });
}

// A block of logits that were computed again becomes the same weights: blocks come in the order of
// the first reading, so the top behind the last one, which is all that is kept of them, and the
// block's own give the top that it was read under.
void weigh_logits(const OpContext& ctx, const LogitsPart& part) {
  for_rows(ctx, part.logits, [&](Index row) {
    if (!part.counts(row)) return;
    float* const x = part.logits.row(row);
    float& top = part.tops[row];
    top = top_behind(top, largest_of(x, part.logits.columns));
    weigh_block(x, top, x, part.logits.columns);
  });
}

// Weights become the gradients of their logits.
void slope_logits(const OpContext& ctx, const LogitsPart& part) {
  const float smoothing = part.args->smoothing;
  const float scale = part.args->scale;
  const Lanes less = splat(scale * (smoothing / static_cast<float>(part.args->weight.rows)));
  for_rows(ctx, part.logits, [&](Index row) {
    float* const x = part.logits.row(row);
    if (!part.counts(row)) {
      std::fill(x, x + part.logits.columns, 0.0F);
      return;
    }
    const LogSum& sum = part.sums[row];
    for (Index i = 0; i < part.logits.columns; i += kVocabularyBlock) {
      const float top = part.tops[row * part.blocks + i / kVocabularyBlock];
      const float shrink = top == sum.top ? 1.0F : exp_of(top - sum.top);
      const Lanes factor = splat(scale * (1.0F / sum.total * shrink));
      // Before they are multiplied, not behind: what would go is a denormal number by then.
      const Lanes faintest = splat(kFaintest * sum.total / shrink);
      each_lanes(std::min(kVocabularyBlock, part.logits.columns - i), [&](Index c, auto some) {
        const Lanes weight = load(x + i + c, some);
        Lanes slope = select_less(weight, faintest, zero(), weight) * factor;
        if (smoothing > 0.0F) slope = slope - less;
        store(slope, x + i + c, some);
      });
    }
    const Index target = part.target(row) - part.token;
    if (target >= 0 && target < part.logits.columns) x[target] -= scale * (1.0F - smoothing);
  });
}

#if HWY_TARGET == HWY_SCALAR
HWY_INLINE Lanes less(const float* x, double offset) {
  alignas(64) float y[kLanes];
  for (Index i = 0; i < kLanes; ++i) {
    y[i] = static_cast<float>(static_cast<double>(x[i]) - offset);
  }
  return load(y);
}
#else
HWY_INLINE Vector less_vector(const float* x, double offset) {
  const hn::ScalableTag<double> wide;
  const hn::Rebind<float, decltype(wide)> narrow;
  const auto by = hn::Set(wide, offset);
  const auto half = [&](const float* from) HWY_ATTR {
    return hn::DemoteTo(narrow, hn::Sub(hn::PromoteTo(wide, hn::LoadU(narrow, from)), by));
  };
  return hn::Combine(kTag, half(x + kVectorLanes / 2), half(x));
}
// x - offset in double precision, rounded once.
HWY_INLINE Lanes less(const float* x, double offset) {
  return TUTTI_LANES(less_vector(x, offset), less_vector(x + kVectorLanes, offset));
}
#endif
HWY_INLINE Lanes less(const float* x, double offset, Whole) { return less(x, offset); }
HWY_INLINE Lanes less(const float* x, double offset, Some part) {
  alignas(64) float whole[kLanes];
  store(load(x, part), whole);
  return less(whole, offset);
}

// visit(block, first, width) for the blocks of a row.
template <class Visit>
HWY_INLINE void each_block(Index width, const Visit& visit) {
  for (Index i = 0; i < width; i += kVocabularyBlock) {
    visit(i / kVocabularyBlock, i, std::min(kVocabularyBlock, width - i));
  }
}

// `top(block, x, width)` gives the largest of each block.
template <class Top>
HWY_INLINE double log_sum(const float* x, Index width, const Top& top) {
  LogSum sum{.top = -std::numeric_limits<float>::infinity()};
  each_block(width, [&](Index block, Index first, Index count) {
    take_block(x + first, top(block, x + first, count), nullptr, count, sum);
  });
  return static_cast<double>(sum.top) + kernels::log(static_cast<double>(sum.total));
}

double log_sum_of_row(const float* x, Index width) {
  return log_sum(
      x, width, [](Index, const float* at, Index count) HWY_ATTR { return largest_of(at, count); });
}

// The largest of the next row's blocks, tops[block], are taken beside the writing of each row:
// memory reads and writes at once.
void log_softmax_rows(const LogSoftmax& args, Writes writes, float* tops, Index begin, Index end) {
  const Index width = args.x.columns;
  each_block(width, [&](Index block, Index first, Index count) {
    tops[block] = largest_of(args.x.row(begin) + first, count);
  });
  for (Index row = begin; row < end; ++row) {
    const float* const x = args.x.row(row);
    float* const y = args.output.row(row);
    const double offset =
        log_sum(x, width, [&](Index block, const float*, Index) HWY_ATTR { return tops[block]; });
    const float* const next = row + 1 < end ? args.x.row(row + 1) : nullptr;
    each_block(width, [&](Index block, Index first, Index count) {
      const auto write = [&](Index i, auto part) {
        put(less(x + first + i, offset, part), y + first + i, part, writes);
      };
      if (next == nullptr) return each_lanes(count, write);
      Largest largest = no_largest();
      each_lanes(count, [&](Index i, auto part) {
        largest.take(next + first + i, part);
        write(i, part);
      });
      tops[block] = max_lanes(largest.lanes);
    });
  }
  end_writes(writes);
}

void log_softmax_kernel(const OpContext& ctx, const LogSoftmax& args) {
  const Writes writes = writes_to(args.output, {args.x.data});
  const Index blocks = (args.x.columns + kVocabularyBlock - 1) / kVocabularyBlock;
  ctx.pool->parallel_for(args.x.rows, rows_in_piece(args.x.columns),
                         [&](int thread, Index begin, Index end) {
                           ArenaScope scope(ctx.pool->scratch(thread));
                           float* const tops = ctx.pool->scratch(thread).floats(blocks);
                           log_softmax_rows(args, writes, tops, begin, end);
                         });
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "kernels/tensor/op_counters.h"

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/product/rounded.h"
#include "kernels/tensor/rounding.h"

namespace tutti::kernels {

namespace {

// Logits held at once: some 2 MB of them, but enough rows that the weight's gradient, which is read
// and written once per chunk, is worth its traffic.
constexpr Index kLogitsHeld = Index{1} << 19;
constexpr Index kRowsMin = 256;
constexpr Index kRowsMax = 1024;
// Products of bf16 that sum over rows are cut at multiples of this (product_bf16.h).
constexpr Index kGroup = 32;

Result<> check(const LinearCrossEntropy& args) {
  const auto wrong = [](const std::string& what) {
    return Error{ErrorCode::invalid_argument, "linear_cross_entropy: " + what};
  };
  if (args.hidden.columns != args.weight.columns ||
      static_cast<Index>(args.targets.size()) != args.hidden.rows ||
      !fits_operand(args.hidden_rounded, args.hidden) ||
      !fits_operand(args.weight_rounded, args.weight) ||
      (args.hidden.rows > 0 && args.losses == nullptr)) {
    return wrong("hidden, weight, targets or losses do not match");
  }
  if (args.dhidden && !same_shape(args.dhidden, args.hidden)) {
    return wrong("dhidden differs from hidden in shape");
  }
  if (args.dweight && (!args.dhidden || !same_shape(args.dweight, args.weight))) {
    return wrong("dweight differs from weight in shape, or dhidden is missing");
  }
  if (!(args.smoothing >= 0.0F && args.smoothing < 1.0F) || args.ignore >= 0 || args.chunk < 0) {
    return wrong("the smoothing is outside of [0, 1), ignore is not negative, or the chunk is");
  }
  int exponent = 0;
  if (!(args.scale > 0.0F) || std::frexp(args.scale, &exponent) != 0.5F) {
    return wrong("the scale is no power of two");
  }
  if (args.padded != 0 && args.padded < args.weight.rows) return wrong("padded is less than V");
  for (const std::int32_t target : args.targets) {
    if (target != args.ignore && (target < 0 || target >= args.weight.rows)) {
      return wrong("target " + std::to_string(target) + " is not in the vocabulary of " +
                   std::to_string(args.weight.rows));
    }
  }
  return {};
}

// One chunk of rows, over the vocabulary in stretches: all of it, or block by block.
class Chunk {
 public:
  Chunk(const OpContext& ctx, const LinearCrossEntropy& args, Index rows)
      : ctx_(ctx),
        args_(args),
        vocabulary_(args.weight.rows),
        stretch_(args.memory == LinearCrossEntropy::Memory::rows
                     ? vocabulary_
                     : std::min(vocabulary_, kVocabularyBlock)),
        held_(ctx.pool->op_scratch().matrix(rows, stretch_)) {
    Arena& arena = ctx.pool->op_scratch();
    part_.args = &args;
    part_.blocks = (stretch_ + kVocabularyBlock - 1) / kVocabularyBlock;
    part_.tops = arena.floats(rows * part_.blocks);
    part_.sums =
        reinterpret_cast<LogSum*>(arena.take(static_cast<std::size_t>(rows) * sizeof(LogSum)));
  }

  void run(Index first, Index rows) {
    part_.first = first;
    std::fill(part_.sums, part_.sums + rows,
              LogSum{.top = -std::numeric_limits<float>::infinity()});
    hidden_ = args_.hidden.row_range(first, rows);
    for (Index token = 0; token < vocabulary_; token += stretch_) {
      multiply(token);
      TUTTI_CPU_CALL(read_logits)(ctx_, part_);
    }
    for (Index row = 0; row < rows; ++row) args_.losses[first + row] = loss_of(row);
    if (!args_.dhidden) return;
    const bool again = stretch_ < vocabulary_;
    if (again) std::fill(part_.tops, part_.tops + rows, -std::numeric_limits<float>::infinity());
    for (Index token = 0; token < vocabulary_; token += stretch_) {
      if (again) {
        multiply(token);
        TUTTI_CPU_CALL(weigh_logits)(ctx_, part_);
      }
      TUTTI_CPU_CALL(slope_logits)(ctx_, part_);
      add_gradients(token);
    }
  }

 private:
  void multiply(Index token) {
    const Index width = std::min(stretch_, vocabulary_ - token);
    part_.token = token;
    part_.logits = {held_.data, hidden_.rows, width};
    TUTTI_ASSERT(product_nt(ctx_, {.left = hidden_,
                                   .right = args_.weight.row_range(token, width),
                                   .output = part_.logits})
                     .ok());
  }

  float loss_of(Index row) const {
    if (!part_.counts(row)) return 0.0F;
    const LogSum& sum = part_.sums[row];
    auto chosen = static_cast<double>(sum.chosen);
    if (args_.smoothing > 0.0F) {
      const auto smoothing = static_cast<double>(args_.smoothing);
      const double mean = static_cast<double>(sum.sum) / static_cast<double>(vocabulary_);
      chosen = (1.0 - smoothing) * chosen + smoothing * mean;
    }
    return static_cast<float>(kernels::log(static_cast<double>(sum.total)) +
                              (static_cast<double>(sum.top) - chosen));
  }

  void add_gradients(Index token) {
    const Index width = part_.logits.columns;
    TUTTI_ASSERT(product_nn(ctx_, {.left = part_.logits,
                                   .right = args_.weight.row_range(token, width),
                                   .output = args_.dhidden.row_range(part_.first, hidden_.rows),
                                   .start = token == 0 ? ChainStart::zero : ChainStart::output})
                     .ok());
    if (!args_.dweight) return;
    TUTTI_ASSERT(product_tn(ctx_, {.left = part_.logits,
                                   .right = hidden_,
                                   .output = args_.dweight.row_range(token, width),
                                   .start = ChainStart::output})
                     .ok());
  }

  const OpContext& ctx_;
  const LinearCrossEntropy& args_;
  Index vocabulary_;
  Index stretch_;
  Matrix held_;
  LogitsPart part_;
  ConstMatrix hidden_;
};

// Of the products of logits and of gradients; of a logit its difference, exponential and sum, and
// its slope.
OpWork work_of(const LinearCrossEntropy& args) {
  const Index products = 1 + (args.dhidden ? 1 : 0) + (args.dweight ? 1 : 0);
  const Index logits = args.hidden.rows * args.weight.rows;
  const Index hidden = args.hidden.rows * args.hidden.columns;
  const Index weight = args.weight.rows * args.hidden.columns;
  // Gradients of the weight are added to those before; targets and losses are a number a row each.
  const Index read = hidden + weight + args.hidden.rows;
  const Index written =
      (args.dhidden ? hidden : 0) + (args.dweight ? 2 * weight : 0) + args.hidden.rows;
  return {.flop = logits * (2 * products * args.hidden.columns + (args.dhidden ? 4 : 3)),
          .bytes = 4 * (read + written)};
}

}  // namespace

Result<> linear_cross_entropy(const OpContext& ctx, const LinearCrossEntropy& args) {
  if (auto checked = check(args); !checked) return checked;
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  if (args.hidden_rounded || args.weight_rounded) {
    return rounded_on_devices_only("linear_cross_entropy");
  }
  if (const auto rounding = RoundingScope::in_use(); rounding && !can_round(*rounding)) {
    return Error{ErrorCode::unsupported,
                 "linear_cross_entropy: the path in use has no such rounded products"};
  }
  const Index rows = args.hidden.rows;
  const Index vocabulary = args.weight.rows;
  if (rows == 0 || vocabulary == 0) return {};
  const OpTimer timer(Op::linear_cross_entropy, work_of(args));
  const Index width = args.memory == LinearCrossEntropy::Memory::rows
                          ? vocabulary
                          : std::min(vocabulary, kVocabularyBlock);
  const Index wanted = args.chunk > 0
                           ? args.chunk
                           : std::clamp(kLogitsHeld / width, kRowsMin, kRowsMax) / kGroup * kGroup;
  const Index chunk_rows = std::min(rows, wanted);
  ArenaScope scope(ctx.pool->op_scratch());
  Chunk chunk(ctx, args, chunk_rows);
  for (Index first = 0; first < rows; first += chunk_rows) {
    chunk.run(first, std::min(chunk_rows, rows - first));
  }
  for (Index row = 0; row < rows; ++row) {
    if (args.targets[static_cast<std::size_t>(row)] == args.ignore) continue;
    if (args.loss_sum != nullptr) *args.loss_sum += static_cast<double>(args.losses[row]);
    if (args.target_count != nullptr) ++*args.target_count;
  }
  return {};
}

double row_log_sum(const float* x, Index width) { return TUTTI_CPU_CALL(log_sum_of_row)(x, width); }

Result<> log_softmax(const OpContext& ctx, ConstMatrix x, Matrix output) {
  if (!same_shape(x, output)) {
    return Error{ErrorCode::invalid_argument, "log_softmax: x and output differ in shape"};
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(LogSoftmax{x, output});
  const OpTimer timer(Op::log_softmax,
                      {.flop = 4 * x.rows * x.columns, .bytes = 8 * x.rows * x.columns});
  TUTTI_CPU_CALL(log_softmax_kernel)(ctx, {x, output});
  return {};
}

}  // namespace tutti::kernels

#endif
