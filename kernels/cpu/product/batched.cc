// A batch as one loop over parts of products, each computed by one thread alone.
#include "kernels/ops/product_batched.h"

#include <algorithm>
#include <string>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/not_rounded.h"
#include "kernels/cpu/product/finish.h"
#include "kernels/cpu/product/product_call.h"
#include "kernels/cpu/product/rounded.h"

namespace tutti::kernels {

namespace {

// Whole tiles of every path, in rows as in columns; and so many parts a thread that they end
// together.
constexpr Index kPartOutputs = 192;
constexpr Index kPartsOfThread = 4;

// How the products are cut: rows, or of a wide output columns. The longer side is: what the parts
// then pack or read twice is the shorter one's.
struct Cut {
  bool by_rows = true;
  Index whole = 0;
  Index step = 0;
  Index parts = 0;

  Cut(const ProductShape& s, Index count, Index threads)
      : by_rows(s.rows >= s.columns), whole(by_rows ? s.rows : s.columns) {
    const Index wanted = threads == 1 ? 1 : (kPartsOfThread * threads + count - 1) / count;
    const Index tiles = (whole + kPartOutputs - 1) / kPartOutputs;
    step = (tiles + std::min(wanted, tiles) - 1) / std::min(wanted, tiles) * kPartOutputs;
    parts = (whole + step - 1) / step;
  }
  Stretch at(Index part) const { return {part * step, std::min(step, whole - part * step)}; }

  template <class M>
  M of(const M& outputs, const Stretch& range) const {
    return by_rows ? outputs.row_range(range.first, range.depth)
                   : outputs.column_range(range.first, range.depth);
  }
  // Of an operand whose rows are outputs, or whose columns are.
  template <class M>
  static M of_operand(const M& operand, DepthOrder order, const Stretch& range) {
    return order == DepthOrder::inside ? operand.row_range(range.first, range.depth)
                                       : operand.column_range(range.first, range.depth);
  }
};

template <class M>
M moved(M matrix, Index elements) {
  matrix.data += elements;
  return matrix;
}

// The outputs of product b in that range.
template <class Part, class Batch>
Part part_of(const Batch& args, Index b, const Cut& cut, const Stretch& range) {
  const ProductShape s = shape_of(args.form, args);
  Part part{.left = moved(args.left, b * args.left_step),
            .right = moved(args.right, b * args.right_step),
            .output = {},
            .start = args.start,
            .activation = args.activation};
  if (cut.by_rows) {
    part.left = Cut::of_operand(part.left, s.left_order, range);
  } else {
    part.right = Cut::of_operand(part.right, s.right_order, range);
  }
  if (args.output) part.output = cut.of(moved(args.output, b * args.output_step), range);
  if (args.narrow) part.narrow = cut.of(moved(args.narrow, b * args.output_step), range);
  if (args.residual) part.residual = cut.of(moved(args.residual, b * args.residual_step), range);
  if (args.gate) part.gate = cut.of(moved(args.gate, b * args.gate_step), range);
  if (args.bias != nullptr) {
    part.bias = args.bias + b * args.bias_step + (cut.by_rows ? 0 : range.first);
  }
  return part;
}

// `run(part, scratch)` for all parts of a checked batch.
template <class Part, class Batch, class Run>
void run_parts(const OpContext& ctx, const Batch& args, const Run& run) {
  const Cut cut(shape_of(args.form, args), args.count, ctx.pool->threads());
  ctx.pool->parallel_for(args.count * cut.parts, 1, [&](int thread, Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      run(part_of<Part>(args, i / cut.parts, cut, cut.at(i % cut.parts)),
          Workers(ctx.pool->scratch(thread)));
    }
  });
}

template <class Batch>
Result<> check(const OpContext& ctx, const char* op, const Batch& args, const ProductShape& s) {
  if (auto here = only_on_cpu(ctx, op); !here) return here;
  const bool shares_output = args.count > 1 && s.rows > 0 && s.columns > 0 && args.output_step == 0;
  if (s.right_depth != s.depth || !outputs_fit(args, s.rows, s.columns) ||
      args.left.stride < args.left.columns || args.right.stride < args.right.columns ||
      args.count < 0 || shares_output) {
    return Error{ErrorCode::invalid_argument,
                 std::string(op) +
                     ": left, right, output or ends do not match, or products share one output"};
  }
  return {};
}

template <class Batch>
OpWork work_of_batch(const Batch& args, const ProductShape& s, Index element_bytes) {
  const OpWork one = work_of(args, s, element_bytes);
  return {.flop = args.count * one.flop, .bytes = args.count * one.bytes};
}

}  // namespace

Result<> product_batched(const OpContext& ctx, const BatchedProduct& args) {
  const ProductShape s = shape_of(args.form, args);
  if (auto checked = check(ctx, "product_batched", args, s); !checked) return checked;
  if (auto exact = not_rounded("product_batched"); !exact) return exact;
  if (args.count == 0 || s.rows == 0 || s.columns == 0) return {};
  const OpTimer timer(Op::product_batched, work_of_batch(args, s, sizeof(float)));
  run_parts<Product>(ctx, args, [&](const Product& part, const Workers& alone) {
    run_call(alone, call_of(args.form, part));
  });
  return {};
}

Result<> product_bf16_batched(const OpContext& ctx, const Bf16BatchedProduct& args) {
  const ProductShape s = shape_of(args.form, args);
  if (auto checked = check(ctx, "product_bf16_batched", args, s); !checked) return checked;
  if (!has_bf16(args.arithmetic)) {
    return Error{ErrorCode::unsupported,
                 "product_bf16_batched: the path in use has no such bf16 products"};
  }
  if (args.count == 0 || s.rows == 0 || s.columns == 0) return {};
  const OpTimer timer(Op::product_bf16_batched, work_of_batch(args, s, sizeof(Bf16)));
  run_parts<Bf16Product>(ctx, args, [&](Bf16Product part, const Workers& alone) {
    part.arithmetic = args.arithmetic;
    run_bf16(alone, args.form, part);
  });
  return {};
}

}  // namespace tutti::kernels
