#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/optimizers/adamw.cc"
#include <hwy/foreach_target.h>

#include "kernels/cpu/optimizers/adamw_lanes-inl.h"
#include "kernels/tensor/device.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

void adamw_block(const AdamWRange& args, const AdamWConstants& constants, Index begin, Index end) {
  adamw_range(constants,
              {.weight = args.weight.data() + begin,
               .gradient = args.gradient.data() + begin,
               .first = args.first.data() + begin,
               .second = args.second.data() + begin},
              end - begin);
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "kernels/tensor/op_counters.h"

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/optimizers/grid_blocks.h"

namespace tutti::kernels {

Result<> adamw_update(const OpContext& ctx, const AdamWUpdate& args) {
  for (const AdamWRange& range : args.ranges) {
    const std::size_t size = range.weight.size();
    if (range.gradient.size() != size || range.first.size() != size ||
        range.second.size() != size || !fits_blocks(size, range.hashes)) {
      return Error{ErrorCode::invalid_argument,
                   "adamw_update: weight, gradient, states or hashes differ in length"};
    }
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  const auto block = TUTTI_CPU_CALL(adamw_block);
  for (const AdamWRange& range : args.ranges) {
    const OpTimer timer(Op::adamw_update, {.flop = 14 * static_cast<Index>(range.weight.size()),
                                           .bytes = 28 * static_cast<Index>(range.weight.size())});
    const AdamWConstants constants(range.settings);
    update_blocks(ctx, range.weight, range.hashes,
                  [&](Index begin, Index end) { block(range, constants, begin, end); });
  }
  return {};
}

}  // namespace tutti::kernels

#endif
