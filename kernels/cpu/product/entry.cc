// The checked entries of the fp32 products.
#include <algorithm>
#include <string>

#include "kernels/cpu/product/finish.h"
#include "kernels/cpu/product/product_call.h"
#include "kernels/ops/product.h"
#include "kernels/ops/weights/packed_weight.h"
#include "kernels/tensor/device.h"
#include "kernels/tensor/op_counters.h"

namespace tutti::kernels {

namespace {

using Order = ProductCall::Order;

Error wrong_shape(const char* op, const ProductCall& call) {
  return Error{ErrorCode::invalid_argument,
               std::string(op) + ": left, right, output or residual do not match for output [" +
                   std::to_string(call.rows) + ", " + std::to_string(call.columns) +
                   "] over depth " + std::to_string(call.depth)};
}

// On the CPU, or by `enqueue`.
template <class Enqueue>
Result<> run(const OpContext& ctx, const ProductCall& call, const Enqueue& enqueue) {
  if (ctx.device != nullptr) return end_on_device(ctx, *call.product, enqueue);
  run_call(ctx, call);
  return {};
}

bool fits(const Product& args, Index rows, Index columns) {
  return outputs_fit(args, rows, columns) && args.left.stride >= args.left.columns &&
         args.right.stride >= args.right.columns;
}

}  // namespace

void run_call(const OpContext& ctx, const ProductCall& call) {
  if (call.rows == 0 || call.columns == 0) return;
  const OpTimer timer(Op::product, {.flop = 2 * call.rows * call.columns * call.depth});
  ArenaScope scope(ctx.pool->op_scratch());
  Product args = *call.product;
  // Chains go on through memory in fp32, whatever they end as.
  if (args.narrow) args.output = ctx.pool->op_scratch().matrix(call.rows, call.columns);
  if (call.depth > 0) {
    ProductCall whole = call;
    whole.product = &args;
    return run_product(Workers(*ctx.pool), whole);
  }
  for (Index r = 0; args.start == ChainStart::zero && r < call.rows; ++r) {
    std::fill_n(args.output.row(r), call.columns, 0.0F);
  }
  finish(ends_of(args), args.output, {0, call.rows, 0, call.columns});
}

Result<> product_nt(const OpContext& ctx, const Product& args) {
  const PackedWeight* const packed = args.packed;
  const ProductCall call{args.left.rows,
                         args.right.rows,
                         args.left.columns,
                         args.left,
                         Order::depth_inside,
                         args.right,
                         Order::depth_inside,
                         &args,
                         packed != nullptr ? packed->image() : nullptr};
  if (args.right.columns != call.depth || !fits(args, call.rows, call.columns) ||
      (packed != nullptr &&
       (packed->outputs() != call.columns || packed->inputs() != call.depth))) {
    return wrong_shape("product_nt", call);
  }
  return run(ctx, call,
             [&](const Product& plain) { return ctx.device->enqueue(ProductForm::nt, plain); });
}

Result<> product_nn(const OpContext& ctx, const Product& args) {
  const ProductCall call{args.left.rows,      args.right.columns, args.left.columns,    args.left,
                         Order::depth_inside, args.right,         Order::depth_outside, &args};
  if (args.right.rows != call.depth || !fits(args, call.rows, call.columns)) {
    return wrong_shape("product_nn", call);
  }
  return run(ctx, call,
             [&](const Product& plain) { return ctx.device->enqueue(ProductForm::nn, plain); });
}

Result<> product_tn(const OpContext& ctx, const Product& args) {
  const ProductCall call{args.left.columns,    args.right.columns, args.left.rows,       args.left,
                         Order::depth_outside, args.right,         Order::depth_outside, &args};
  if (args.right.rows != call.depth || !fits(args, call.rows, call.columns)) {
    return wrong_shape("product_tn", call);
  }
  return run(ctx, call,
             [&](const Product& plain) { return ctx.device->enqueue(ProductForm::tn, plain); });
}

}  // namespace tutti::kernels
