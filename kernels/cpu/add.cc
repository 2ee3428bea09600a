#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/add.cc"
#include <hwy/foreach_target.h>

#include <algorithm>

#include "kernels/cpu/lanes-inl.h"
#include "kernels/cpu/row_split.h"
#include "kernels/cpu/sums-inl.h"
#include "kernels/ops/add.h"
#include "kernels/ops/product.h"
#include "kernels/tensor/device.h"

#ifndef TUTTI_TREE_STRETCH
#define TUTTI_TREE_STRETCH
namespace tutti::kernels {
inline constexpr Index kTreeStretch = 1024;  // of six levels, in L2
}
#endif

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

void add_into_kernel(const OpContext& ctx, std::span<float> a, std::span<const float> b) {
  ctx.pool->parallel_for(static_cast<Index>(a.size()), kElementsInPiece,
                         [&](int, Index begin, Index end) {
                           float* const to = a.data() + begin;
                           const float* const from = b.data() + begin;
                           each_lanes(end - begin, [&](Index i, auto part) {
                             store(load(to + i, part) + load(from + i, part), to + i, part);
                           });
                         });
}

// The sum of parts [first, first + count) over one stretch: where it lies, or null if none exists.
// A sum of two is written to `place`, those below it to the stretches behind.
struct TreeStretch {
  const TreeSum* args = nullptr;
  Index begin = 0;
  Index size = 0;

  const float* sum(std::size_t first, std::size_t count, float* place, float* free) const {
    if (count == 1) {
      const std::span<const float>& part = args->parts[first];
      return part.empty() ? nullptr : part.data() + begin;
    }
    const std::size_t half = count / 2;
    const float* const left = sum(first, half, free, free + 2 * kTreeStretch);
    const float* const right =
        sum(first + half, half, free + kTreeStretch, free + 2 * kTreeStretch);
    if (left == nullptr || right == nullptr) return left == nullptr ? right : left;
    each_lanes(size, [&](Index i, auto part) {
      store(load(left + i, part) + load(right + i, part), place + i, part);
    });
    return place;
  }
};

void tree_sum_kernel(const OpContext& ctx, const TreeSum& args) {
  const auto total = static_cast<Index>(args.out.size());
  ctx.pool->parallel_for(total, kTreeStretch, [&](int thread, Index begin, Index end) {
    ArenaScope scope(ctx.pool->scratch(thread));
    // Two stretches for each level below the first: 2^6 parts have six.
    float* const free = ctx.pool->scratch(thread).floats(12 * kTreeStretch);
    for (Index i = begin; i < end; i += kTreeStretch) {
      const TreeStretch stretch{&args, i, std::min(kTreeStretch, end - i)};
      float* const out = args.out.data() + i;
      const float* const sum = stretch.sum(0, args.parts.size(), out, free);
      if (sum == nullptr) {
        std::fill(out, out + stretch.size, 0.0F);
      } else if (sum != out) {
        std::copy(sum, sum + stretch.size, out);
      }
    }
  });
}

void column_sums_kernel(const OpContext& ctx, const ColumnSums& args) {
  if (args.start == ChainStart::zero) std::fill_n(args.output, args.x.columns, 0.0F);
  each_columns(ctx, {0, args.x.rows}, args.x.columns, [&](Index column, auto part, RowSpan rows) {
    Lanes sum = load(args.output + column, part);
    for (Index row = rows.first; row < rows.last; ++row) {
      sum = sum + load(args.x.row(row) + column, part);
    }
    store(sum, args.output + column, part);
  });
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "kernels/tensor/op_counters.h"

#include "kernels/cpu/dispatch.h"

namespace tutti::kernels {

Result<> add_into(const OpContext& ctx, std::span<float> a, std::span<const float> b) {
  if (a.size() != b.size()) {
    return Error{ErrorCode::invalid_argument, "add_into: a and b differ in length"};
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(AddInto{a, b});
  const OpTimer timer(Op::add_into, {.flop = static_cast<Index>(a.size()),
                                     .bytes = 12 * static_cast<Index>(a.size())});
  TUTTI_CPU_CALL(add_into_kernel)(ctx, a, b);
  return {};
}

Result<> tree_sum(const OpContext& ctx, const TreeSum& args) {
  const std::size_t count = args.parts.size();
  Index given = 0;
  bool fits = count >= 1 && count <= kTreePartsMax && (count & (count - 1)) == 0;
  for (const auto& part : args.parts) {
    fits = fits && (part.empty() || part.size() == args.out.size());
    given += part.empty() ? 0 : 1;
  }
  if (!fits) {
    return Error{
        ErrorCode::invalid_argument,
        "tree_sum: the parts must be a power of two up to 64, each empty or as long as out"};
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  const auto size = static_cast<Index>(args.out.size());
  const OpTimer timer(Op::tree_sum, {.flop = std::max<Index>(0, given - 1) * size,
                                     .bytes = 4 * (given + 1) * size});
  TUTTI_CPU_CALL(tree_sum_kernel)(ctx, args);
  return {};
}

Result<> column_sums(const OpContext& ctx, const ColumnSums& args) {
  if (args.x.columns > 0 && args.output == nullptr) {
    return Error{ErrorCode::invalid_argument, "column_sums: no output"};
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  const Index outputs = (args.start == ChainStart::output ? 2 : 1) * args.x.columns;
  const OpTimer timer(Op::column_sums, {.flop = args.x.rows * args.x.columns,
                                        .bytes = 4 * (args.x.rows * args.x.columns + outputs)});
  TUTTI_CPU_CALL(column_sums_kernel)(ctx, args);
  return {};
}

}  // namespace tutti::kernels

#endif
