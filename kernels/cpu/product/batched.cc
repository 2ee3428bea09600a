// A batch as one loop over parts of products, each computed by one thread alone.
#include "kernels/ops/product_batched.h"

#include <algorithm>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/product/finish.h"
#include "kernels/cpu/product/product_call.h"
#include "kernels/tensor/op_counters.h"

namespace tutti::kernels {

namespace {

// Whole tiles of every path, in rows as in columns; and so many parts a thread that they end
// together.
constexpr Index kPartOutputs = 192;
constexpr Index kPartsOfThread = 4;

template <class M>
M moved(M matrix, Index floats) {
  matrix.data += floats;
  return matrix;
}

// Rows (or, of a wide output, columns) [first, +count) of product b.
Product part_of(const BatchedProduct& args, Index b, bool by_rows, const Stretch& range) {
  Product part{.left = moved(args.left, b * args.left_step),
               .right = moved(args.right, b * args.right_step),
               .output = moved(args.output, b * args.output_step),
               .start = args.start};
  const bool row_outputs = by_rows ? args.form != ProductForm::tn : args.form == ProductForm::nt;
  ConstMatrix& operand = by_rows ? part.left : part.right;
  operand = row_outputs ? operand.row_range(range.first, range.depth)
                        : operand.column_range(range.first, range.depth);
  part.output = by_rows ? part.output.row_range(range.first, range.depth)
                        : part.output.column_range(range.first, range.depth);
  return part;
}

void run_part(const Product& part, ProductForm form, Arena& scratch) {
  const ProductCall call = call_of(form, part);
  if (call.depth == 0) return finish_empty(part, part.output);
  run_product(Workers(scratch), call);
}

}  // namespace

Result<> product_batched(const OpContext& ctx, const BatchedProduct& args) {
  if (auto here = only_on_cpu(ctx, "product_batched"); !here) return here;
  const ProductShape s = shape_of(args.form, args);
  const bool shares_output = args.count > 1 && s.rows > 0 && s.columns > 0 && args.output_step == 0;
  if (s.right_depth != s.depth || args.output.rows != s.rows || args.output.columns != s.columns ||
      args.output.stride < s.columns || args.left.stride < args.left.columns ||
      args.right.stride < args.right.columns || args.count < 0 || shares_output) {
    return Error{ErrorCode::invalid_argument,
                 "product_batched: left, right and output do not match, or share one output"};
  }
  if (args.count == 0 || s.rows == 0 || s.columns == 0) return {};
  const OpTimer timer(Op::product, {.flop = 2 * args.count * s.rows * s.columns * s.depth});
  const Index threads = ctx.pool->threads();
  // The longer side is cut: what the parts then pack or read twice is the shorter one's.
  const bool by_rows = s.rows >= s.columns;
  const Index whole = by_rows ? s.rows : s.columns;
  const Index wanted = threads == 1 ? 1 : (kPartsOfThread * threads + args.count - 1) / args.count;
  const Index tiles = (whole + kPartOutputs - 1) / kPartOutputs;
  const Index step = (tiles + std::min(wanted, tiles) - 1) / std::min(wanted, tiles) * kPartOutputs;
  const Index parts = (whole + step - 1) / step;
  ctx.pool->parallel_for(args.count * parts, 1, [&](int thread, Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      const Index first = i % parts * step;
      run_part(part_of(args, i / parts, by_rows, {first, std::min(step, whole - first)}), args.form,
               ctx.pool->scratch(thread));
    }
  });
  return {};
}

}  // namespace tutti::kernels
