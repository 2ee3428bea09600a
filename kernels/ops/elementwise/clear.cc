#include "kernels/ops/elementwise/clear.h"

#include <algorithm>

#include "kernels/tensor/device.h"
#include "kernels/tensor/op_counters.h"

namespace tutti::kernels {

Result<> clear(const OpContext& ctx, std::span<float> x) {
  if (ctx.device != nullptr) return ctx.device->zero(x.data(), x.size_bytes());
  const OpTimer timer(Op::clear, {.bytes = static_cast<Index>(x.size_bytes())});
  std::fill(x.begin(), x.end(), 0.0F);
  return {};
}

}  // namespace tutti::kernels
