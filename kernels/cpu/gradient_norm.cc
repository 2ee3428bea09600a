#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/gradient_norm.cc"
#include <hwy/foreach_target.h>

#include "kernels/cpu/lanes-inl.h"
#include "kernels/ops/gradient_norm.h"
#include "kernels/tensor/device.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

// Lane i sums the squares of elements i, i + 16, i + 32, ... in double precision; a square of an
// fp32 number is exact there.
double square_sum(const float* values, Index count) {
  const hn::ScalableTag<double> wide;
  const hn::Rebind<float, decltype(wide)> narrow;
  constexpr Index kWideLanes = kVectorLanes / 2;
  constexpr int kParts = kLanes / kWideLanes;
  alignas(64) double lane[kLanes];
  hn::Vec<decltype(wide)> sum[kParts];
  for (auto& part : sum) part = hn::Zero(wide);
  Index i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int p = 0; p < kParts; ++p) {
      const auto value = hn::PromoteTo(wide, hn::LoadU(narrow, values + i + p * kWideLanes));
      sum[p] = hn::MulAdd(value, value, sum[p]);
    }
  }
  for (int p = 0; p < kParts; ++p) hn::StoreU(sum[p], wide, lane + p * kWideLanes);
  for (Index k = 0; i + k < count; ++k) {
    const auto value = static_cast<double>(values[i + k]);
    lane[k] += value * value;
  }
  for (int half = 8; half > 0; half /= 2) {
    for (int k = 0; k < half; ++k) lane[k] += lane[k + half];
  }
  return lane[0];
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "kernels/tensor/op_counters.h"

#include "kernels/cpu/dispatch.h"

namespace tutti::kernels {

Result<> square_sums(const OpContext& ctx, std::span<const float> values, std::span<double> sums) {
  const auto size = static_cast<Index>(values.size());
  const Index blocks = grid_blocks(size);
  if (sums.size() != static_cast<std::size_t>(blocks)) {
    return Error{ErrorCode::invalid_argument, "square_sums: one sum per grid block is needed"};
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(SquareSums{values, sums});
  const OpTimer timer(Op::square_sums, {.bytes = 4 * size});
  ctx.pool->parallel_for(blocks, 1, [&](int, Index begin, Index end) {
    for (Index block = begin; block < end; ++block) {
      const Index first = block * kGridBlock;
      sums[static_cast<std::size_t>(block)] =
          TUTTI_CPU_CALL(square_sum)(values.data() + first, std::min(kGridBlock, size - first));
    }
  });
  return {};
}

}  // namespace tutti::kernels

#endif
