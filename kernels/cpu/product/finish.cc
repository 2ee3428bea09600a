#include "kernels/cpu/product/finish.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/product/finish.cc"
#include <hwy/foreach_target.h>

#include "kernels/cpu/activation-inl.h"
#include "kernels/cpu/product/bf16_row.h"
#include "kernels/cpu/sums-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

template <class Function>
HWY_INLINE void activate_row(Function, float* y, const float* gate, Index count) {
  each_lanes_twice(count, [&](Index i, auto part) {
    const auto value = load(y + i, part);
    store(gate != nullptr ? Function::value(load(gate + i, part)) * value : Function::value(value),
          y + i, part);
  });
}

// activate(row) is what follows the additions.
template <class Activate>
HWY_INLINE void finish_rows(const Ends& ends, const Matrix& output, const OutputBand& band,
                            const Activate& activate) {
  for (Index r = band.row; r < band.row + band.rows; ++r) {
    float* const y = output.row(r) + band.column;
    if (ends.bias != nullptr) add_row(y, ends.bias + band.column, band.columns);
    if (ends.residual) add_row(y, ends.residual.row(r) + band.column, band.columns);
    activate(r, y);
    if (ends.narrow) round_to_bf16(y, ends.narrow.row(r) + band.column, band.columns);
  }
}

void finish_kernel(const Ends& ends, const Matrix& output, const OutputBand& band) {
  if (!ends.activation) return finish_rows(ends, output, band, [](Index, float*) {});
  with_activation(*ends.activation, [&](auto function) {
    finish_rows(ends, output, band, [&](Index r, float* y) {
      activate_row(function, y, ends.gate ? ends.gate.row(r) + band.column : nullptr, band.columns);
    });
  });
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "kernels/cpu/dispatch.h"

namespace tutti::kernels {

void finish_band(const Ends& ends, const Matrix& output, const OutputBand& band) {
  TUTTI_CPU_CALL(finish_kernel)(ends, output, band);
}

}  // namespace tutti::kernels

#endif
