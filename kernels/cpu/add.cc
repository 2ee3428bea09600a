#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/add.cc"
#include <hwy/foreach_target.h>

#include "kernels/cpu/lanes-inl.h"
#include "kernels/cpu/row_split.h"
#include "kernels/ops/add.h"
#include "kernels/ops/product.h"
#include "kernels/tensor/device.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

void add_into_kernel(const OpContext& ctx, std::span<float> a, std::span<const float> b) {
  ctx.pool->parallel_for(
      static_cast<Index>(a.size()), kElementsInPiece, [&](int, Index begin, Index end) {
        float* const to = a.data() + begin;
        const float* const from = b.data() + begin;
        for_lanes(
            end - begin, [&](Index i) { store(load(to + i) + load(from + i), to + i); },
            [&](Index i, Index left) {
              store_first(load_first(to + i, left) + load_first(from + i, left), to + i, left);
            });
      });
}

void column_sums_kernel(const OpContext& ctx, const ColumnSums& args) {
  const Index groups = (args.x.columns + kLanes - 1) / kLanes;
  ctx.pool->parallel_for(groups, 4, [&](int, Index begin, Index end) {
    for (Index group = begin; group < end; ++group) {
      const Index column = group * kLanes;
      const Index left = std::min(kLanes, args.x.columns - column);
      float* const place = args.output + column;
      Lanes sum = args.start == ChainStart::zero ? zero() : load_first(place, left);
      for (Index row = 0; row < args.x.rows; ++row) {
        const float* const x = args.x.row(row) + column;
        sum = sum + (left == kLanes ? load(x) : load_first(x, left));
      }
      store_first(sum, place, left);
    }
  });
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "kernels/cpu/dispatch.h"

namespace tutti::kernels {

Result<> add_into(const OpContext& ctx, std::span<float> a, std::span<const float> b) {
  if (a.size() != b.size()) {
    return Error{ErrorCode::invalid_argument, "add_into: a and b differ in length"};
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(AddInto{a, b});
  TUTTI_CPU_CALL(add_into_kernel)(ctx, a, b);
  return {};
}

Result<> column_sums(const OpContext& ctx, const ColumnSums& args) {
  if (args.x.columns > 0 && args.output == nullptr) {
    return Error{ErrorCode::invalid_argument, "column_sums: no output"};
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  TUTTI_CPU_CALL(column_sums_kernel)(ctx, args);
  return {};
}

}  // namespace tutti::kernels

#endif
