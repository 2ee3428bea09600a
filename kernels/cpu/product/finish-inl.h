// The fused ends of a product: what happens to a band of outputs once its chains are finished.
#if defined(TUTTI_PRODUCT_FINISH_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TUTTI_PRODUCT_FINISH_INL
#undef TUTTI_PRODUCT_FINISH_INL
#else
#define TUTTI_PRODUCT_FINISH_INL
#endif

#include "kernels/cpu/lanes-inl.h"
#include "kernels/ops/product.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

struct OutputBand {
  Index row = 0;
  Index rows = 0;
  Index column = 0;
  Index columns = 0;
};

HWY_INLINE void add_row(float* to, const float* from, Index count) {
  each_lanes(count, [&](Index i, auto part) {
    store(load(to + i, part) + load(from + i, part), to + i, part);
  });
}

inline void finish(const Product& args, const OutputBand& band) {
  if (args.bias == nullptr && !args.residual) return;
  for (Index r = band.row; r < band.row + band.rows; ++r) {
    float* const output = args.output.row(r) + band.column;
    if (args.bias != nullptr) add_row(output, args.bias + band.column, band.columns);
    if (args.residual) add_row(output, args.residual.row(r) + band.column, band.columns);
  }
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
