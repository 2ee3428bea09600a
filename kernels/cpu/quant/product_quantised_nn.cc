#include "kernels/ops/weights/product_quantised_nn.h"

#include <algorithm>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/product/rounded.h"
#include "kernels/cpu/quant/groups.h"
#include "kernels/cpu/quant/image.h"
#include "kernels/cpu/row_split.h"
#include "kernels/tensor/device.h"
#include "kernels/tensor/not_on_device.h"
#include "kernels/tensor/op_counters.h"

namespace tutti::kernels {

namespace {

// Outputs that are read as f32 together: 4 MB for 4,096 inputs, and chains that go through memory
// once for so many of their terms.
constexpr Index kPanelOutputs = 256;
// Cells that one thread reads of them at once.
constexpr Index kCellsTogether = 4;

// Groups of outputs from `first` on as panel[k][output], the layout that they have in the image.
void read_panel(const OpContext& ctx, const QuantisedWeight& weight, Index first, Index outputs,
                Matrix panel) {
  const Index cells = cells_of(weight.inputs());
  const Index groups = (outputs + kGroup - 1) / kGroup;
  ctx.pool->parallel_for(cells, kCellsTogether, [&](int, Index begin, Index end) {
    for (Index g = 0; g < groups; ++g) {
      read_cells(weight.format(), group_at(weight, first / kGroup + g), begin, end - begin,
                 panel.row(begin * kCell) + g * kGroup, panel.stride);
    }
  });
}

}  // namespace

Result<> product_quantised_nn(const OpContext& ctx, const QuantisedProductNn& args) {
  const QuantisedWeight* const weight = args.right;
  const BasicMatrix<const Bf16>& half = args.narrow_left;
  const bool narrow = half || half.rows > 0;
  const Index rows = narrow ? half.rows : args.left.rows;
  const Index width = narrow ? half.columns : args.left.columns;
  if (weight == nullptr || width != weight->outputs() ||
      (narrow ? half.stride : args.left.stride) < width || (narrow && args.left) ||
      args.output.rows != rows || args.output.columns != weight->inputs() ||
      args.output.stride < args.output.columns ||
      (args.residual && !same_shape(args.residual, args.output))) {
    return Error{ErrorCode::invalid_argument,
                 "product_quantised_nn: left, right, output or residual do not match"};
  }
  const Index inputs = weight->inputs();
  const Index outputs = weight->outputs();
  if (rows == 0 || inputs == 0) return {};
  if (ctx.device != nullptr) {
    if (!narrow) return ctx.device->enqueue(args);
    return not_on_device("product_quantised_nn: bf16 rows");
  }
  const OpTimer timer(
      Op::product_quantised_nn,
      {.flop = 2 * rows * outputs * inputs,
       .bytes = static_cast<std::int64_t>(weight->bytes()) + 4 * rows * (outputs + inputs)});
  ArenaScope scope(ctx.pool->op_scratch());
  const Index panel_width = std::min(kPanelOutputs, (outputs + kGroup - 1) / kGroup * kGroup);
  const Matrix panel = ctx.pool->op_scratch().matrix(cells_of(inputs) * kCell, panel_width);
  // Without outputs: one product over nothing.
  for (Index first = 0; first < std::max<Index>(1, outputs); first += kPanelOutputs) {
    const Index count = std::min(kPanelOutputs, outputs - first);
    read_panel(ctx, *weight, first, count, panel);
    ArenaScope part_scope(ctx.pool->op_scratch());
    const ConstMatrix left = narrow ? in_fp32(Workers(*ctx.pool), half.column_range(first, count))
                                    : args.left.column_range(first, count);
    const bool last = first + count == outputs;
    const Product part{.left = left,
                       .right = ConstMatrix(panel).row_range(0, inputs).column_range(0, count),
                       .output = args.output,
                       .start = first == 0 ? args.start : ChainStart::output,
                       .residual = last ? args.residual : ConstMatrix()};
    // Not product_nt, which a scope of rounding.h would have round.
    run_call(ctx, call_of(ProductForm::nt, part));
  }
  return {};
}

}  // namespace tutti::kernels
