// Rows of one call in groups, each by a weight of its own; a product by one weight is one group.
#pragma once

#include <algorithm>
#include <span>
#include <string_view>

#include "kernels/cpu/product/product_call.h"
#include "kernels/cpu/quant/activations.h"
#include "kernels/tensor/op_counters.h"

namespace tutti::kernels {

// Weights of one format and shape.
struct RowGroups {
  std::span<const QuantisedWeight* const> weights;
  std::span<const Index> ends;  // of each group's rows, ascending; the last is the call's rows
  Index bias_step = 0;          // from one group's bias to the next one's
};

// Inputs of int8_channel: its sum of int8 products stays within int32.
inline constexpr Index kChannelInputsMax = 131072;

// What all products of quantised weights check: `args` has left or narrow_left, and ends that fit
// `rows` by the weight's outputs; the format has the activations. `op` names who refuses.
Result<> check_quantised(std::string_view op, const QuantisedProduct& args,
                         const QuantisedWeight& weight);

// Of left or narrow_left; the other is empty.
inline Index rows_of(const QuantisedProduct& args) {
  return std::max(args.left.rows, args.narrow_left.rows);
}

// By weights of so many bytes.
inline OpWork work_of(const QuantisedProduct& args, const QuantisedWeight& weight,
                      std::size_t weight_bytes) {
  const Index rows = rows_of(args);
  const Index row_bytes =
      (args.narrow_left ? 2 : 4) * weight.inputs() + (args.narrow ? 2 : 4) * weight.outputs();
  return {.flop = 2 * rows * weight.outputs() * weight.inputs(),
          .bytes = static_cast<std::int64_t>(weight_bytes) + rows * row_bytes};
}

// All rows by the weight of that group.
QuantisedProduct product_of(const QuantisedProduct& args, const RowGroups& groups, Index group);

// Rows [first, +depth) of all its matrices.
QuantisedProduct row_range(const QuantisedProduct& args, const Stretch& rows);

// Of checked arguments that have outputs, on the CPU; `args.right` is not read.
void run_groups(const OpContext& ctx, const QuantisedProduct& args, const RowGroups& groups);

// The same for rows that were rounded before; of `left` the rows are read, not the values.
void run_integer_groups(const OpContext& ctx, const QuantisedProduct& args, const RowGroups& groups,
                        const Int8Rows& x);

}  // namespace tutti::kernels
