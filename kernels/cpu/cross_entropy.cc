#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/cross_entropy.cc"
#include <hwy/foreach_target.h>

#include <limits>
#include <string>

#include "kernels/cpu/exp-inl.h"
#include "kernels/cpu/row_split.h"
#include "kernels/ops/cross_entropy.h"
#include "kernels/ops/math.h"
#include "kernels/ops/product.h"
#include "kernels/tensor/device.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

struct LogSum {
  float top;    // the largest
  float total;  // sum of exp(x - top)
};

// Replaces x by exp(x - top) where `weights` is given.
LogSum log_sum_row(const float* x, float* weights, Index width) {
  const Lanes lowest = splat(-std::numeric_limits<float>::infinity());
  Lanes largest = lowest;
  for_lanes(
      width, [&](Index i) { largest = max(largest, load(x + i)); },
      [&](Index i, Index left) {
        largest = max(largest, keep_first(load_first(x + i, left), left, lowest));
      });
  const float top = max_lanes(largest);
  const Lanes offset = splat(top);
  Lanes sum = zero();
  for_lanes(
      width,
      [&](Index i) {
        const Lanes weight = exp(load(x + i) - offset);
        if (weights != nullptr) store(weight, weights + i);
        sum = sum + weight;
      },
      [&](Index i, Index left) {
        const Lanes weight = keep_first(exp(load_first(x + i, left) - offset), left, zero());
        if (weights != nullptr) store_first(weight, weights + i, left);
        sum = sum + weight;
      });
  return {top, sum_lanes(sum)};
}

void scale_row(float* x, float by, Index width) {
  const Lanes factor = splat(by);
  for_lanes(
      width, [&](Index i) { store(load(x + i) * factor, x + i); },
      [&](Index i, Index left) { store_first(load_first(x + i, left) * factor, x + i, left); });
}

// Losses of rows [first, first + logits.rows); logits become their gradients where those are
// wanted.
void cross_entropy_rows(const OpContext& ctx, const LinearCrossEntropy& args, Index first,
                        Matrix logits) {
  const bool backward = static_cast<bool>(args.dhidden);
  const Index width = logits.columns;
  ctx.pool->parallel_for(logits.rows, rows_in_piece(width), [&](int, Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      float* const x = logits.row(r);
      const std::int32_t target = args.targets[static_cast<std::size_t>(first + r)];
      if (target < 0) {
        args.losses[first + r] = 0.0F;
        if (backward) std::fill(x, x + width, 0.0F);
        continue;
      }
      const float chosen = x[target];
      const LogSum sum = log_sum_row(x, backward ? x : nullptr, width);
      args.losses[first + r] =
          static_cast<float>(kernels::log(static_cast<double>(sum.total)) +
                             (static_cast<double>(sum.top) - static_cast<double>(chosen)));
      if (backward) {
        scale_row(x, 1.0F / sum.total, width);
        x[target] -= 1.0F;
      }
    }
  });
}

void log_softmax_kernel(const OpContext& ctx, ConstMatrix x, Matrix output) {
  ctx.pool->parallel_for(x.rows, rows_in_piece(x.columns), [&](int, Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      const LogSum sum = log_sum_row(x.row(r), nullptr, x.columns);
      const double offset =
          static_cast<double>(sum.top) + kernels::log(static_cast<double>(sum.total));
      for (Index c = 0; c < x.columns; ++c) {
        output.row(r)[c] = static_cast<float>(static_cast<double>(x.row(r)[c]) - offset);
      }
    }
  });
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "kernels/cpu/dispatch.h"

namespace tutti::kernels {

namespace {

// Rows of logits held at once: some 2 MB of them, but enough rows that the weight's gradient, which
// is read and written once per chunk, is worth its traffic.
constexpr Index kLogitsHeld = Index{1} << 19;
constexpr Index kRowsMin = 256;
constexpr Index kRowsMax = 1024;

Result<> check(const LinearCrossEntropy& args) {
  const auto wrong = [](const std::string& what) {
    return Error{ErrorCode::invalid_argument, "linear_cross_entropy: " + what};
  };
  if (args.hidden.columns != args.weight.columns ||
      static_cast<Index>(args.targets.size()) != args.hidden.rows ||
      (args.hidden.rows > 0 && args.losses == nullptr)) {
    return wrong("hidden, weight, targets or losses do not match");
  }
  if (args.dhidden && !same_shape(args.dhidden, args.hidden)) {
    return wrong("dhidden differs from hidden in shape");
  }
  if (args.dweight && (!args.dhidden || !same_shape(args.dweight, args.weight))) {
    return wrong("dweight differs from weight in shape, or dhidden is missing");
  }
  for (const std::int32_t target : args.targets) {
    if (target < -1 || target >= args.weight.rows) {
      return wrong("target " + std::to_string(target) + " is not in the vocabulary of " +
                   std::to_string(args.weight.rows));
    }
  }
  return {};
}

}  // namespace

Result<> linear_cross_entropy(const OpContext& ctx, const LinearCrossEntropy& args) {
  if (auto checked = check(args); !checked) return checked;
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  const Index rows = args.hidden.rows;
  const Index vocabulary = args.weight.rows;
  if (rows == 0 || vocabulary == 0) return {};
  const Index chunk = std::min(rows, std::clamp(kLogitsHeld / vocabulary, kRowsMin, kRowsMax));
  ArenaScope scope(ctx.pool->op_scratch());
  const Matrix held = ctx.pool->op_scratch().matrix(chunk, vocabulary);
  for (Index first = 0; first < rows; first += chunk) {
    const Index count = std::min(chunk, rows - first);
    const Matrix logits = held.row_range(0, count);
    const ConstMatrix hidden = args.hidden.row_range(first, count);
    TUTTI_ASSERT(product_nt(ctx, {.left = hidden, .right = args.weight, .output = logits}).ok());
    TUTTI_CPU_CALL(cross_entropy_rows)(ctx, args, first, logits);
    if (args.dhidden) {
      TUTTI_ASSERT(product_nn(ctx, {.left = logits,
                                    .right = args.weight,
                                    .output = args.dhidden.row_range(first, count)})
                       .ok());
    }
    if (args.dweight) {
      TUTTI_ASSERT(product_tn(ctx, {.left = logits,
                                    .right = hidden,
                                    .output = args.dweight,
                                    .start = ChainStart::output})
                       .ok());
    }
  }
  for (Index row = 0; row < rows; ++row) {
    if (args.targets[static_cast<std::size_t>(row)] < 0) continue;
    if (args.loss_sum != nullptr) *args.loss_sum += static_cast<double>(args.losses[row]);
    if (args.target_count != nullptr) ++*args.target_count;
  }
  return {};
}

Result<> log_softmax(const OpContext& ctx, ConstMatrix x, Matrix output) {
  if (!same_shape(x, output)) {
    return Error{ErrorCode::invalid_argument, "log_softmax: x and output differ in shape"};
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(LogSoftmax{x, output});
  TUTTI_CPU_CALL(log_softmax_kernel)(ctx, x, output);
  return {};
}

}  // namespace tutti::kernels

#endif
