#include "kernels/ops/weights/product_grouped.h"

#include <algorithm>

#include "kernels/cpu/product/finish.h"
#include "kernels/cpu/quant/row_groups.h"
#include "kernels/tensor/device.h"
#include "kernels/tensor/not_on_device.h"

namespace tutti::kernels {

namespace {

// Whether there is a weight for each group, all alike, and the groups' rows are all of them.
bool are_groups(const GroupedProduct& args, Index rows) {
  if (args.rights.size() != args.ends.size()) return false;
  if (args.rights.empty()) return rows == 0;
  const QuantisedWeight* const first = args.rights.front();
  const auto alike = [&](const QuantisedWeight* weight) {
    return weight != nullptr && weight->format() == first->format() &&
           weight->outputs() == first->outputs() && weight->inputs() == first->inputs();
  };
  return std::ranges::all_of(args.rights, alike) && std::ranges::is_sorted(args.ends) &&
         args.ends.front() >= 0 && args.ends.back() == rows;
}

// All rows, as of one product.
QuantisedProduct whole_of(const GroupedProduct& args) {
  return {.left = args.left,
          .right = args.rights.empty() ? nullptr : args.rights.front(),
          .output = args.output,
          .activations = args.activations,
          .start = args.start,
          .bias = args.bias,
          .residual = args.residual,
          .activation = args.activation,
          .gate = args.gate,
          .narrow = args.narrow,
          .narrow_left = args.narrow_left};
}

// Of groups that have rows.
std::size_t weight_bytes(const RowGroups& groups) {
  std::size_t bytes = 0;
  Index first = 0;
  for (std::size_t g = 0; g < groups.ends.size(); first = groups.ends[g++]) {
    if (groups.ends[g] > first) bytes += groups.weights[g]->bytes();
  }
  return bytes;
}

}  // namespace

Result<> product_quantised_grouped(const OpContext& ctx, const GroupedProduct& args) {
  const QuantisedProduct whole = whole_of(args);
  const Index rows = rows_of(whole);
  if (!are_groups(args, rows)) {
    return Error{ErrorCode::invalid_argument,
                 "product_quantised_grouped: groups are one weight each, of one format and shape, "
                 "and ends that ascend to the rows"};
  }
  if (args.rights.empty()) return {};
  if (auto fits = check_quantised("product_quantised_grouped", whole, *whole.right); !fits) {
    return fits;
  }
  if (rows == 0 || whole.right->outputs() == 0) return {};
  const RowGroups groups{args.rights, args.ends, args.bias_step};
  if (ctx.device == nullptr) {
    const OpTimer timer(Op::product_quantised_grouped,
                        work_of(whole, *whole.right, weight_bytes(groups)));
    run_groups(ctx, whole, groups);
    return {};
  }
  if (args.narrow_left) {
    return not_on_device("product_quantised_grouped: bf16 rows");
  }
  Index first = 0;
  for (std::size_t g = 0; g < args.ends.size(); first = args.ends[g++]) {
    if (args.ends[g] == first) continue;
    const QuantisedProduct part =
        row_range(product_of(whole, groups, static_cast<Index>(g)), {first, args.ends[g] - first});
    auto done = end_on_device(
        ctx, part, [&](const QuantisedProduct& plain) { return ctx.device->enqueue(plain); });
    if (!done) return done;
  }
  return {};
}

}  // namespace tutti::kernels
