#include "kernels/ops/weights/packed_weight.h"

#include <algorithm>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/product/pack.h"
#include "kernels/cpu/product/product_call.h"

namespace tutti::kernels {

namespace {

Index panels_of(Index outputs) { return (outputs + kImagePanel - 1) / kImagePanel; }

}  // namespace

std::uint64_t PackedWeight::bytes(Index outputs, Index inputs) {
  return static_cast<std::uint64_t>(panels_of(outputs) * kImagePanel * inputs) * sizeof(float);
}

Result<PackedWeight> pack_weight(const OpContext& ctx, ConstMatrix weight) {
  if (auto here = only_on_cpu(ctx, "pack_weight"); !here) return here.error();
  if (weight.stride < weight.columns) {
    return Error{ErrorCode::invalid_argument, "pack_weight: the weight's rows overlap"};
  }
  PackedWeight packed;
  packed.outputs_ = weight.rows;
  packed.inputs_ = weight.columns;
  const Index panel_floats = kImagePanel * weight.columns;
  packed.image_ = FloatBuffer(panels_of(weight.rows) * panel_floats);
  float* const image = packed.image_.data();
  ctx.pool->parallel_for(panels_of(weight.rows), 1, [&](int, Index begin, Index end) {
    for (Index p = begin; p < end; ++p) {
      const Index first = p * kImagePanel;
      pack_panel_transposed(weight.row_range(first, std::min(kImagePanel, weight.rows - first)),
                            kImagePanel, image + p * panel_floats);
    }
  });
  return packed;
}

}  // namespace tutti::kernels
