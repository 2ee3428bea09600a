// Three sweeps over the matrix, because u needs all row and column sums, and its clip needs all of
// u (ops/decisions/0031): the second and third find the gradient in the caches where it fits. The
// first takes rows and columns together while a cache holds them, the third hashes block by block.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/optimizers/adafactor.cc"
#include <hwy/foreach_target.h>

#include <algorithm>
#include <cmath>

#include "kernels/cpu/lanes-inl.h"
#include "kernels/cpu/row_split.h"
#include "kernels/cpu/sums-inl.h"
#include "kernels/ops/optimizers/adafactor.h"
#include "kernels/tensor/device.h"

#ifndef TUTTI_ADAFACTOR_SWEEP
#define TUTTI_ADAFACTOR_SWEEP
namespace tutti::kernels {

struct AdafactorSweep {
  const AdafactorUpdate* update = nullptr;
  float* row_sums = nullptr;   // [rows]: of the squares, then of u^2
  float* row_roots = nullptr;  // [rows]: 1 / sqrt(row_i / mean(row)), or 1
  float* column_roots = nullptr;
  double rate = 0.0;
  float step = 0.0F;  // rate over the clip
};

}  // namespace tutti::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

HWY_INLINE Lanes gradient_of(const AdafactorUpdate& args, const float* from, Index i, Whole part) {
  return load(from + i, part) * splat(args.settings.factor);
}
HWY_INLINE Lanes gradient_of(const AdafactorUpdate& args, const float* from, Index i, Some part) {
  return load(from + i, part) * splat(args.settings.factor);
}

void add_row_squares(const OpContext& ctx, const AdafactorSweep& sweep, RowSpan span) {
  const AdafactorUpdate& args = *sweep.update;
  const Index width = args.weight.columns;
  ctx.pool->parallel_for(span.count(), rows_in_piece(width), [&](int, Index begin, Index end) {
    for (Index row = span.first + begin; row < span.first + end; ++row) {
      Lanes sum = zero();
      each_lanes(width, [&](Index i, auto part) {
        const Lanes g = gradient_of(args, args.gradient.row(row), i, part);
        sum = fma(g, g, sum);
      });
      sweep.row_sums[row] = sum_lanes(sum);
    }
  });
}

// A chain over rows for each column, that goes on from span to span.
void add_column_squares(const OpContext& ctx, const AdafactorSweep& sweep, RowSpan span) {
  const AdafactorUpdate& args = *sweep.update;
  float* const sums = sweep.column_roots;  // until they are known
  each_columns(ctx, span, args.weight.columns, [&](Index column, auto part, RowSpan some) {
    Lanes sum = load(sums + column, part);
    for (Index row = some.first; row < some.last; ++row) {
      const Lanes g = gradient_of(args, args.gradient.row(row), column, part);
      sum = fma(g, g, sum);
    }
    store(sum, sums + column, part);
  });
}

// The sums of rows and columns, and the column states; a vector's are its second moments.
void adafactor_sums(const OpContext& ctx, const AdafactorSweep& sweep) {
  const AdafactorUpdate& args = *sweep.update;
  const auto rows = static_cast<double>(args.weight.rows);
  const Lanes beta = splat(static_cast<float>(args.settings.beta2));
  const Lanes rest = splat(static_cast<float>(1.0 - args.settings.beta2));
  const Lanes mean = splat(static_cast<float>(1.0 / rows));
  const Lanes epsilon = splat(static_cast<float>(args.settings.epsilon));
  const Index columns = args.weight.columns;
  float* const sums = sweep.column_roots;
  std::fill_n(sums, columns, 0.0F);
  each_span(args.weight.rows, columns, ctx.pool->threads(), [&](RowSpan span) {
    add_row_squares(ctx, sweep, span);
    add_column_squares(ctx, sweep, span);
  });
  each_lanes(columns, [&](Index column, auto part) {
    float* const state = args.column.data() + column;
    const Lanes sum = load(sums + column, part);
    const Lanes now = fma(beta, load(state, part), rest * fma(sum, mean, epsilon));
    store(now, state, part);
    store(splat(1.0F) / sqrt(now), sweep.column_roots + column, part);
  });
}

void adafactor_squares(const OpContext& ctx, const AdafactorSweep& sweep) {
  const AdafactorUpdate& args = *sweep.update;
  const Index width = args.weight.columns;
  ctx.pool->parallel_for(args.weight.rows, rows_in_piece(width), [&](int, Index begin, Index end) {
    for (Index row = begin; row < end; ++row) {
      const Lanes root = splat(sweep.row_roots[row]);
      Lanes sum = zero();
      each_lanes(width, [&](Index i, auto part) {
        const Lanes g = gradient_of(args, args.gradient.row(row), i, part);
        const Lanes u = g * root * load(sweep.column_roots + i, part);
        sum = fma(u, u, sum);
      });
      sweep.row_sums[row] = sum_lanes(sum);
    }
  });
}

// Elements [begin, end) of the matrix, on the calling thread.
void adafactor_block(const AdafactorSweep& sweep, Index begin, Index end) {
  const AdafactorUpdate& args = *sweep.update;
  const Index width = args.weight.columns;
  const Lanes keep = splat(static_cast<float>(1.0 - sweep.rate * args.settings.decay));
  const Lanes step = splat(sweep.step);
  while (begin < end) {
    const Index row = begin / width;
    const Index first = begin - row * width;
    const Index count = std::min(width - first, end - begin);
    const Lanes root = splat(sweep.row_roots[row]);
    const float* const gradient = args.gradient.row(row) + first;
    float* const weight = args.weight.row(row) + first;
    each_lanes(count, [&](Index i, auto part) {
      const Lanes g = gradient_of(args, gradient, i, part);
      const Lanes u = g * root * load(sweep.column_roots + first + i, part);
      store(fnma(step, u, load(weight + i, part) * keep), weight + i, part);
    });
    begin += count;
  }
}

void row_squares(const OpContext& ctx, ConstMatrix x, float* sums) {
  ctx.pool->parallel_for(x.rows, rows_in_piece(x.columns), [&](int, Index begin, Index end) {
    for (Index row = begin; row < end; ++row) {
      Lanes sum = zero();
      each_lanes(x.columns, [&](Index i, auto part) {
        const Lanes value = load(x.row(row) + i, part);
        sum = fma(value, value, sum);
      });
      sums[row] = sum_lanes(sum);
    }
  });
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "kernels/tensor/op_counters.h"

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/optimizers/grid_blocks.h"

namespace tutti::kernels {

namespace {

double ordered_total(const float* sums, Index count) {
  double total = 0.0;
  for (Index i = 0; i < count; ++i) total += static_cast<double>(sums[i]);
  return total;
}

// Row states from the sums of squares, and their roots relative to the mean.
void finish_rows(const AdafactorUpdate& args, const AdafactorSweep& sweep) {
  const Index rows = args.weight.rows;
  if (args.row.empty()) {
    std::fill(sweep.row_roots, sweep.row_roots + rows, 1.0F);
    return;
  }
  const auto beta = static_cast<float>(args.settings.beta2);
  const auto rest = static_cast<float>(1.0 - args.settings.beta2);
  const auto epsilon = static_cast<float>(args.settings.epsilon);
  for (Index r = 0; r < rows; ++r) {
    float& state = args.row[static_cast<std::size_t>(r)];
    const float mean = sweep.row_sums[r] / static_cast<float>(args.weight.columns) + epsilon;
    state = std::fma(beta, state, rest * mean);
  }
  const double mean = ordered_total(args.row.data(), rows) / static_cast<double>(rows);
  for (Index r = 0; r < rows; ++r) {
    sweep.row_roots[r] =
        1.0F / std::sqrt(args.row[static_cast<std::size_t>(r)] / static_cast<float>(mean));
  }
}

}  // namespace

Result<> adafactor_update(const OpContext& ctx, const AdafactorUpdate& args) {
  const Index rows = args.weight.rows;
  const Index columns = args.weight.columns;
  const auto size = static_cast<std::size_t>(rows * columns);
  if (!same_shape(args.weight, args.gradient) || args.weight.stride != columns ||
      static_cast<Index>(args.column.size()) != columns ||
      (args.row.empty() ? rows > 1 : static_cast<Index>(args.row.size()) != rows) ||
      !fits_blocks(size, args.hashes)) {
    return Error{ErrorCode::invalid_argument,
                 "adafactor_update: weight, gradient, states or hashes do not match"};
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  if (size == 0) return {};
  const bool relative = args.settings.size_min > 0.0;
  const OpTimer timer(Op::adafactor_update, {.flop = (relative ? 14 : 12) * rows * columns,
                                             .bytes = (relative ? 24 : 20) * rows * columns});
  ArenaScope scope(ctx.pool->op_scratch());
  Arena& arena = ctx.pool->op_scratch();
  AdafactorSweep sweep{.update = &args,
                       .row_sums = arena.floats(rows),
                       .row_roots = arena.floats(rows),
                       .column_roots = arena.floats(columns),
                       .rate = args.settings.rate};
  if (relative) {
    TUTTI_CPU_CALL(row_squares)(ctx, args.weight, sweep.row_sums);
    const double squares = ordered_total(sweep.row_sums, rows);
    sweep.rate *= std::max(args.settings.size_min, std::sqrt(squares / static_cast<double>(size)));
  }
  TUTTI_CPU_CALL(adafactor_sums)(ctx, sweep);
  finish_rows(args, sweep);
  TUTTI_CPU_CALL(adafactor_squares)(ctx, sweep);
  const double rms = std::sqrt(ordered_total(sweep.row_sums, rows) / static_cast<double>(size));
  sweep.step = static_cast<float>(sweep.rate / std::max(1.0, rms / args.settings.clip));
  const auto block = TUTTI_CPU_CALL(adafactor_block);
  update_blocks(ctx, {args.weight.data, size}, args.hashes,
                [&](Index begin, Index end) { block(sweep, begin, end); });
  return {};
}

}  // namespace tutti::kernels

#endif
