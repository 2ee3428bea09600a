#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/adamw.cc"
#include <hwy/foreach_target.h>

#include <cmath>

#include "kernels/cpu/lanes-inl.h"
#include "kernels/ops/adamw.h"
#include "kernels/tensor/device.h"

#ifndef TUTTI_ADAMW_CONSTANTS
#define TUTTI_ADAMW_CONSTANTS
namespace tutti::kernels {

// The settings as fp32 numbers: computed in double, rounded once.
struct AdamWConstants {
  explicit AdamWConstants(const AdamWSettings& s)
      : factor(s.factor),
        keep(static_cast<float>(1.0 - s.rate * s.decay)),
        beta1(static_cast<float>(s.beta1)),
        rest1(static_cast<float>(1.0 - s.beta1)),
        beta2(static_cast<float>(s.beta2)),
        rest2(static_cast<float>(1.0 - s.beta2)),
        root(static_cast<float>(std::sqrt(s.correction2))),
        epsilon(static_cast<float>(s.epsilon)),
        step(static_cast<float>(s.rate / s.correction1)) {}

  float factor, keep, beta1, rest1, beta2, rest2, root, epsilon, step;
};

}  // namespace tutti::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

struct AdamWState {
  Lanes weight, first, second;
};

HWY_INLINE AdamWState adamw_lanes(const AdamWConstants& c, const AdamWState& old,
                                  const Lanes& gradient) {
  const Lanes g = gradient * splat(c.factor);
  const Lanes first = fma(splat(c.beta1), old.first, splat(c.rest1) * g);
  const Lanes second = fma(splat(c.beta2), old.second, splat(c.rest2) * g * g);
  const Lanes scale = sqrt(second) / splat(c.root) + splat(c.epsilon);
  return {fnma(splat(c.step), first / scale, old.weight * splat(c.keep)), first, second};
}

void adamw_block(const AdamWUpdate& args, const AdamWConstants& constants, Index begin, Index end) {
  float* const weight = args.weight.data() + begin;
  const float* const gradient = args.gradient.data() + begin;
  float* const first = args.first.data() + begin;
  float* const second = args.second.data() + begin;
  for_lanes(
      end - begin,
      [&](Index i) {
        const AdamWState now = adamw_lanes(
            constants, {load(weight + i), load(first + i), load(second + i)}, load(gradient + i));
        store(now.weight, weight + i);
        store(now.first, first + i);
        store(now.second, second + i);
      },
      [&](Index i, Index left) {
        const AdamWState now =
            adamw_lanes(constants,
                        {load_first(weight + i, left), load_first(first + i, left),
                         load_first(second + i, left)},
                        load_first(gradient + i, left));
        store_first(now.weight, weight + i, left);
        store_first(now.first, first + i, left);
        store_first(now.second, second + i, left);
      });
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "kernels/cpu/dispatch.h"

namespace tutti::kernels {

Result<> adamw_update(const OpContext& ctx, const AdamWUpdate& args) {
  const std::size_t size = args.weight.size();
  const Index blocks = grid_blocks(static_cast<Index>(size));
  if (args.gradient.size() != size || args.first.size() != size || args.second.size() != size ||
      (!args.hashes.empty() && args.hashes.size() != static_cast<std::size_t>(blocks))) {
    return Error{ErrorCode::invalid_argument,
                 "adamw_update: weight, gradient, states or hashes differ in length"};
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  const AdamWConstants constants(args.settings);
  ctx.pool->parallel_for(blocks, 1, [&](int, Index begin, Index end) {
    for (Index block = begin; block < end; ++block) {
      const Index first = block * kGridBlock;
      const Index last = std::min(first + kGridBlock, static_cast<Index>(size));
      TUTTI_CPU_CALL(adamw_block)(args, constants, first, last);
      if (!args.hashes.empty()) {
        args.hashes[static_cast<std::size_t>(block)] = hash_block(args.weight.subspan(
            static_cast<std::size_t>(first), static_cast<std::size_t>(last - first)));
      }
    }
  });
  return {};
}

}  // namespace tutti::kernels

#endif
