// Optimizers whose unit is the element: SGD, Lion, schedule-free AdamW.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/optimizers/elementwise.cc"
#include <hwy/foreach_target.h>

#include "kernels/cpu/lanes-inl.h"
#include "kernels/ops/optimizers/lion.h"
#include "kernels/ops/optimizers/schedule_free.h"
#include "kernels/ops/optimizers/sgd.h"
#include "kernels/tensor/device.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

void sgd_block(const SgdRange& args, Index begin, Index end) {
  const SgdConstants c(args.settings);
  float* const weight = args.weight.data() + begin;
  const float* const gradient = args.gradient.data() + begin;
  float* const velocity = args.velocity.empty() ? nullptr : args.velocity.data() + begin;
  const Lanes factor = splat(c.factor);
  const Lanes decay = splat(c.decay);
  const Lanes momentum = splat(c.momentum);
  const Lanes rate = splat(c.rate);
  each_lanes(end - begin, [&](Index i, auto part) {
    const Lanes w = load(weight + i, part);
    const Lanes g = fma(w, decay, load(gradient + i, part) * factor);
    Lanes step = g;
    if (velocity != nullptr) {
      const Lanes v = fma(momentum, load(velocity + i, part), g);
      store(v, velocity + i, part);
      step = c.nesterov ? fma(momentum, v, g) : v;
    }
    store(fnma(rate, step, w), weight + i, part);
  });
}

// -1, 0 or 1; NaN for NaN.
HWY_INLINE Lanes sign(const Lanes& x) {
  const Lanes zeros = x * zero();  // NaN stays
  return select_less(x, zero(), splat(-1.0F), select_less(zero(), x, splat(1.0F), zeros));
}

void lion_block(const LionRange& args, Index begin, Index end) {
  const LionConstants c(args.settings);
  float* const weight = args.weight.data() + begin;
  const float* const gradient = args.gradient.data() + begin;
  float* const momentum = args.momentum.data() + begin;
  const Lanes factor = splat(c.factor);
  const Lanes keep = splat(c.keep);
  const Lanes rate = splat(c.rate);
  const Lanes beta1 = splat(c.beta1);
  const Lanes rest1 = splat(c.rest1);
  const Lanes beta2 = splat(c.beta2);
  const Lanes rest2 = splat(c.rest2);
  each_lanes(end - begin, [&](Index i, auto part) {
    const Lanes g = load(gradient + i, part) * factor;
    const Lanes m = load(momentum + i, part);
    const Lanes direction = sign(fma(beta1, m, rest1 * g));
    store(fnma(rate, direction, load(weight + i, part) * keep), weight + i, part);
    store(fma(beta2, m, rest2 * g), momentum + i, part);
  });
}

void schedule_free_block(const ScheduleFreeRange& args, Index begin, Index end) {
  const ScheduleFreeConstants c(args.settings);
  float* const weight = args.weight.data() + begin;
  const float* const gradient = args.gradient.data() + begin;
  float* const base = args.base.data() + begin;
  float* const second = args.second.data() + begin;
  const Lanes factor = splat(c.factor);
  const Lanes beta2 = splat(c.beta2);
  const Lanes rest2 = splat(c.rest2);
  const Lanes root = splat(c.root);
  const Lanes epsilon = splat(c.epsilon);
  const Lanes decay = splat(c.decay);
  const Lanes average = splat(c.average);
  const Lanes rate = splat(c.rate);
  const Lanes along = splat(c.along);
  each_lanes(end - begin, [&](Index i, auto part) {
    const Lanes g = load(gradient + i, part) * factor;
    const Lanes v = fma(beta2, load(second + i, part), rest2 * g * g);
    const Lanes y = load(weight + i, part);
    const Lanes z = load(base + i, part);
    const Lanes d = fma(decay, y, g / (sqrt(v) / root + epsilon));
    store(v, second + i, part);
    store(fnma(along, d, fma(average, z - y, y)), weight + i, part);
    store(fnma(rate, d, z), base + i, part);
  });
}

void average_block(const ScheduleFreeAverage& args, Index begin, Index end) {
  const Lanes towards = splat(static_cast<float>(1.0 - 1.0 / args.beta1));
  const float* const weight = args.weight.data() + begin;
  const float* const base = args.base.data() + begin;
  float* const average = args.average.data() + begin;
  each_lanes(end - begin, [&](Index i, auto part) {
    const Lanes y = load(weight + i, part);
    store(fma(towards, load(base + i, part) - y, y), average + i, part);
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
Error differ(const char* op) {
  return Error{ErrorCode::invalid_argument,
               std::string(op) + ": weight, gradient, states or hashes differ in length"};
}
}  // namespace

Result<> sgd_update(const OpContext& ctx, const SgdUpdate& args) {
  for (const SgdRange& range : args.ranges) {
    const std::size_t size = range.weight.size();
    const bool bare = range.settings.momentum == 0.0 && range.velocity.empty();
    if (range.gradient.size() != size || (!bare && range.velocity.size() != size) ||
        !fits_blocks(size, range.hashes)) {
      return differ("sgd_update");
    }
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  const auto block = TUTTI_CPU_CALL(sgd_block);
  for (const SgdRange& range : args.ranges) {
    const auto size = static_cast<Index>(range.weight.size());
    const bool bare = range.velocity.empty();
    const OpTimer timer(Op::sgd_update,
                        {.flop = (bare ? 5 : 7) * size, .bytes = (bare ? 12 : 20) * size});
    update_blocks(ctx, range.weight, range.hashes,
                  [&](Index begin, Index end) { block(range, begin, end); });
  }
  return {};
}

Result<> lion_update(const OpContext& ctx, const LionUpdate& args) {
  for (const LionRange& range : args.ranges) {
    const std::size_t size = range.weight.size();
    if (range.gradient.size() != size || range.momentum.size() != size ||
        !fits_blocks(size, range.hashes)) {
      return differ("lion_update");
    }
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  const auto block = TUTTI_CPU_CALL(lion_block);
  for (const LionRange& range : args.ranges) {
    const OpTimer timer(Op::lion_update, {.flop = 10 * static_cast<Index>(range.weight.size()),
                                          .bytes = 20 * static_cast<Index>(range.weight.size())});
    update_blocks(ctx, range.weight, range.hashes,
                  [&](Index begin, Index end) { block(range, begin, end); });
  }
  return {};
}

Result<> schedule_free_update(const OpContext& ctx, const ScheduleFreeUpdate& args) {
  for (const ScheduleFreeRange& range : args.ranges) {
    const std::size_t size = range.weight.size();
    if (range.gradient.size() != size || range.base.size() != size || range.second.size() != size ||
        !fits_blocks(size, range.hashes)) {
      return differ("schedule_free_update");
    }
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  const auto block = TUTTI_CPU_CALL(schedule_free_block);
  for (const ScheduleFreeRange& range : args.ranges) {
    const OpTimer timer(Op::schedule_free_update,
                        {.flop = 18 * static_cast<Index>(range.weight.size()),
                         .bytes = 28 * static_cast<Index>(range.weight.size())});
    update_blocks(ctx, range.weight, range.hashes,
                  [&](Index begin, Index end) { block(range, begin, end); });
  }
  return {};
}

Result<> schedule_free_average(const OpContext& ctx, const ScheduleFreeAverage& args) {
  const std::size_t size = args.weight.size();
  if (args.base.size() != size || args.average.size() != size || !(args.beta1 > 0.0)) {
    return differ("schedule_free_average");
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  const OpTimer timer(Op::schedule_free_average, {.flop = 3 * static_cast<Index>(size),
                                                  .bytes = 12 * static_cast<Index>(size)});
  const auto block = TUTTI_CPU_CALL(average_block);
  update_blocks(ctx, args.average, {}, [&](Index begin, Index end) { block(args, begin, end); });
  return {};
}

}  // namespace tutti::kernels

#endif
