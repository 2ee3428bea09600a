#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/optimizers/adamw.cc"
#include <hwy/foreach_target.h>

#include "kernels/cpu/optimizers/adamw_lanes-inl.h"
#include "kernels/tensor/device.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

void adamw_block(const AdamWUpdate& args, const AdamWConstants& constants, Index begin, Index end) {
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
  const std::size_t size = args.weight.size();
  if (args.gradient.size() != size || args.first.size() != size || args.second.size() != size ||
      !fits_blocks(size, args.hashes)) {
    return Error{ErrorCode::invalid_argument,
                 "adamw_update: weight, gradient, states or hashes differ in length"};
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  const OpTimer timer(Op::adamw_update, {.bytes = 28 * static_cast<Index>(size)});
  const AdamWConstants constants(args.settings);
  const auto block = TUTTI_CPU_CALL(adamw_block);
  update_blocks(ctx, args.weight, args.hashes,
                [&](Index begin, Index end) { block(args, constants, begin, end); });
  return {};
}

}  // namespace tutti::kernels

#endif
