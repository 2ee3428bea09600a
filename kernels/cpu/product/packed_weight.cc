#include "kernels/ops/weights/packed_weight.h"

#include <algorithm>

#include "kernels/cpu/product/pack.h"
#include "kernels/cpu/product/product_call.h"
#include "kernels/tensor/device.h"
#include "kernels/tensor/op_counters.h"

namespace tutti::kernels {

namespace {

Index panels_of(Index outputs) { return (outputs + kImagePanel - 1) / kImagePanel; }

}  // namespace

std::size_t PackedWeight::image_bytes(Index outputs, Index inputs) {
  return static_cast<std::size_t>(panels_of(outputs) * kImagePanel * inputs) * sizeof(float);
}

PackedWeight PackedWeight::view(Index outputs, Index inputs, const std::byte* image) {
  PackedWeight packed;
  packed.outputs_ = outputs;
  packed.inputs_ = inputs;
  packed.elsewhere_ = reinterpret_cast<const float*>(image);
  return packed;
}

Result<PackedWeight> pack_weight(const OpContext& ctx, ConstMatrix weight) {
  if (weight.stride < weight.columns) {
    return Error{ErrorCode::invalid_argument, "pack_weight: the weight's rows overlap"};
  }
  PackedWeight packed;
  packed.outputs_ = weight.rows;
  packed.inputs_ = weight.columns;
  if (ctx.device != nullptr) {
    packed.image_ = FloatBuffer(weight.rows * weight.columns, ctx.device);
    FloatBuffer dense(weight.stride == weight.columns ? 0 : weight.rows * weight.columns);
    if (dense.size() > 0) copy_rows(weight, dense.data(), weight.columns);
    const float* const rows = dense.size() > 0 ? dense.data() : weight.data;
    const auto sent = ctx.device->upload(packed.image_.data(), rows, packed.bytes());
    return sent ? Result<PackedWeight>(std::move(packed)) : sent.error();
  }
  const OpTimer timer(Op::pack_weight, {.bytes = 8 * weight.rows * weight.columns});
  const Index panel_floats = kImagePanel * weight.columns;
  packed.image_ = FloatBuffer(panels_of(weight.rows) * panel_floats);
  float* const image = packed.image_.data();
  ctx.pool->parallel_for(panels_of(weight.rows), 1, [&](int, Index begin, Index end) {
    for (Index p = begin; p < end; ++p) {
      const Index first = p * kImagePanel;
      pack_image_panel(weight.row_range(first, std::min(kImagePanel, weight.rows - first)),
                       kImagePanel, image + p * panel_floats);
    }
  });
  return packed;
}

}  // namespace tutti::kernels
