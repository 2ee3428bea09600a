#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rotary.cc"
#include <hwy/foreach_target.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "kernels/cpu/lanes-inl.h"
#include "kernels/cpu/row_split.h"
#include "kernels/ops/math.h"
#include "kernels/ops/rotary.h"
#include "kernels/tensor/device.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

struct Turned {
  Lanes first, second;
};

HWY_INLINE Turned turn(const Lanes& a, const Lanes& b, const Lanes& cosine, const Lanes& sine) {
  return {fnma(b, sine, a * cosine), fma(a, sine, b * cosine)};
}

void turn_head(float* x, Index half, const float* cosine, const float* sine, float sign) {
  const Lanes direction = splat(sign);
  each_lanes(half, [&](Index i, auto part) {
    const Turned turned = turn(load(x + i, part), load(x + half + i, part), load(cosine + i, part),
                               load(sine + i, part) * direction);
    store(turned.first, x + i, part);
    store(turned.second, x + half + i, part);
  });
}

void rotary_apply_kernel(const OpContext& ctx, const RotaryApply& args) {
  const float sign = args.direction == RotaryApply::Direction::forward ? 1.0F : -1.0F;
  const Index heads = args.x.columns / args.head_width;
  ctx.pool->parallel_for(
      args.x.rows, rows_in_piece(args.x.columns), [&](int, Index begin, Index end) {
        for (Index row = begin; row < end; ++row) {
          for (Index head = 0; head < heads; ++head) {
            turn_head(args.x.row(row) + head * args.head_width, args.cosine.columns,
                      args.cosine.row(row), args.sine.row(row), sign);
          }
        }
      });
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "kernels/tensor/op_counters.h"

#include "kernels/cpu/dispatch.h"

namespace tutti::kernels {

Result<> rotary_angles(const OpContext& ctx, const RotaryAngles& args) {
  const auto tokens = static_cast<Index>(args.positions.size());
  const auto width = static_cast<Index>(args.frequencies.size());
  if (args.cosine.rows != tokens || args.cosine.columns != width ||
      !same_shape(args.cosine, args.sine)) {
    return Error{ErrorCode::invalid_argument,
                 "rotary_angles: cosine and sine must be [positions, frequencies]"};
  }
  if (tokens > 0 && width > 0) {
    const auto [least, most] = std::ranges::minmax(args.positions);
    if (least < 0) {
      return Error{ErrorCode::invalid_argument, "rotary_angles: a position is negative"};
    }
    const float angle = static_cast<float>(most) * std::ranges::max(args.frequencies);
    if (std::isnan(cos(static_cast<double>(angle)))) {
      return Error{ErrorCode::invalid_argument, "rotary_angles: position " + std::to_string(most) +
                                                    " is too far: its angle is not below 2^27"};
    }
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  const OpTimer timer(Op::rotary_angles, {.flop = 3 * tokens * width, .bytes = 8 * tokens * width});
  ctx.pool->parallel_for(tokens, rows_in_piece(width * 16), [&](int, Index begin, Index end) {
    for (Index t = begin; t < end; ++t) {
      const auto position = static_cast<float>(args.positions[static_cast<std::size_t>(t)]);
      for (Index i = 0; i < width; ++i) {
        const float angle = position * args.frequencies[static_cast<std::size_t>(i)];
        args.cosine.row(t)[i] = static_cast<float>(cos(static_cast<double>(angle))) * args.factor;
        args.sine.row(t)[i] = static_cast<float>(sin(static_cast<double>(angle))) * args.factor;
      }
    }
  });
  return {};
}

Result<> rotary_apply(const OpContext& ctx, const RotaryApply& args) {
  const Index width = 2 * args.cosine.columns;
  if (args.head_width <= 0 || width > args.head_width || args.x.columns % args.head_width != 0 ||
      args.cosine.rows != args.x.rows || !same_shape(args.cosine, args.sine) ||
      !fits_outputs(args.x, args.x, args.rounded) || (args.rounded && width != args.head_width)) {
    return Error{ErrorCode::invalid_argument,
                 "rotary_apply: x must be [tokens, heads * head_width], angles [tokens, half]"};
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  if (args.rounded) return rounded_on_devices_only("rotary_apply");
  // Columns of heads behind `width` stay as they are.
  const Index turned = args.x.rows * args.x.columns / args.head_width * width;
  const OpTimer timer(Op::rotary_apply,
                      {.flop = 3 * turned, .bytes = 8 * turned + 4 * args.x.rows * width});
  TUTTI_CPU_CALL(rotary_apply_kernel)(ctx, args);
  return {};
}

}  // namespace tutti::kernels

#endif
