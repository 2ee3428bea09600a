#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/optimizers/adamw8.cc"
#include <hwy/foreach_target.h>

#include <algorithm>

#include "kernels/cpu/optimizers/adamw_lanes-inl.h"
#include "kernels/ops/optimizers/adamw8.h"
#include "kernels/tensor/device.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

// One block of states: unpacked, stepped, packed anew.
struct State8 {
  alignas(64) float first[kState8Block];
  alignas(64) float second[kState8Block];
};

HWY_INLINE Lanes round_lanes(const Lanes& x) { return TUTTI_LANES(hn::Round(x.a), hn::Round(x.b)); }

HWY_INLINE void unpack(const AdamW8Range& args, Index begin, Index count, State8& state) {
  const auto block = static_cast<std::size_t>(begin / kState8Block);
  const Lanes of_first = splat(args.first_scales[block]);
  const Lanes of_second = splat(args.second_scales[block]);
  const std::int8_t* const first = args.first.data() + begin;
  const std::uint8_t* const second = args.second.data() + begin;
  for (Index i = 0; i < count; ++i) state.first[i] = static_cast<float>(first[i]);
  for (Index i = 0; i < count; ++i) state.second[i] = static_cast<float>(second[i]);
  each_lanes(count, [&](Index i, auto part) {
    const Lanes c = load(state.first + i, part) * splat(1.0F / 127.0F);
    store(c * abs(c) * of_first, state.first + i, part);
    const Lanes d = load(state.second + i, part) * splat(1.0F / 255.0F);
    store((d * d) * (d * d) * of_second, state.second + i, part);
  });
}

// Codes are whole numbers; what is not finite shows in the scale, its code is 0.
HWY_INLINE Lanes codes_between(const Lanes& low, const Lanes& codes, const Lanes& high) {
  return select_less(low, codes, select_less(codes, high, codes, zero()), zero());
}

HWY_INLINE float largest(const float* x, Index count) {
  Lanes most = zero();
  each_lanes(count, [&](Index i, auto part) { most = max(abs(load(x + i, part)), most); });
  return max_lanes(most);
}

HWY_INLINE void pack(const AdamW8Range& args, Index begin, Index count, State8& state) {
  const auto block = static_cast<std::size_t>(begin / kState8Block);
  const float first_scale = largest(state.first, count);
  const float second_scale = largest(state.second, count);
  args.first_scales[block] = first_scale;
  args.second_scales[block] = second_scale;
  // A scale of zero divides zeros by one.
  const Lanes of_first = splat(first_scale > 0.0F ? first_scale : 1.0F);
  const Lanes of_second = splat(second_scale > 0.0F ? second_scale : 1.0F);
  each_lanes(count, [&](Index i, auto part) {
    const Lanes x = load(state.first + i, part);
    const Lanes size = round_lanes(sqrt(abs(x) / of_first) * splat(127.0F));
    const Lanes first = select_less(x, zero(), zero() - size, size);
    store(codes_between(splat(-128.0F), first, splat(128.0F)), state.first + i, part);
    const Lanes y = load(state.second + i, part);
    const Lanes code = round_lanes(sqrt(sqrt(y / of_second)) * splat(255.0F));
    const Lanes second = select_less(zero(), y, max(code, splat(1.0F)), zero());
    store(codes_between(splat(-1.0F), second, splat(256.0F)), state.second + i, part);
  });
  std::int8_t* const first = args.first.data() + begin;
  std::uint8_t* const second = args.second.data() + begin;
  for (Index i = 0; i < count; ++i) first[i] = static_cast<std::int8_t>(state.first[i]);
  for (Index i = 0; i < count; ++i) second[i] = static_cast<std::uint8_t>(state.second[i]);
}

void adamw8_block(const AdamW8Range& args, const AdamWConstants& constants, Index begin,
                  Index end) {
  State8 state;
  for (; begin < end; begin += kState8Block) {
    const Index count = std::min(kState8Block, end - begin);
    unpack(args, begin, count, state);
    adamw_range(constants,
                {.weight = args.weight.data() + begin,
                 .gradient = args.gradient.data() + begin,
                 .first = state.first,
                 .second = state.second},
                count);
    pack(args, begin, count, state);
  }
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "kernels/tensor/op_counters.h"

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/optimizers/grid_blocks.h"

namespace tutti::kernels {

Result<> adamw8_update(const OpContext& ctx, const AdamW8Update& args) {
  for (const AdamW8Range& range : args.ranges) {
    const std::size_t size = range.weight.size();
    const auto blocks = static_cast<std::size_t>(state8_blocks(static_cast<Index>(size)));
    if (range.gradient.size() != size || range.first.size() != size ||
        range.second.size() != size || range.first_scales.size() != blocks ||
        range.second_scales.size() != blocks || !fits_blocks(size, range.hashes)) {
      return Error{ErrorCode::invalid_argument,
                   "adamw8_update: weight, gradient, states, scales or hashes differ in length"};
    }
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  const auto block = TUTTI_CPU_CALL(adamw8_block);
  for (const AdamW8Range& range : args.ranges) {
    const OpTimer timer(Op::adamw8_update, {.flop = 28 * static_cast<Index>(range.weight.size()),
                                            .bytes = 16 * static_cast<Index>(range.weight.size())});
    const AdamWConstants constants(range.settings);
    update_blocks(
        ctx, range.weight, range.hashes,
        [&](Index begin, Index end) { block(range, constants, begin, end); }, kState8Block);
  }
  return {};
}

}  // namespace tutti::kernels

#endif
