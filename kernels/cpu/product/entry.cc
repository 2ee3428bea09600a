// The checked entries of the fp32 products.
#include <string>

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

Result<> run(const OpContext& ctx, const ProductCall& call) {
  const Product& args = *call.product;
  if (call.rows == 0 || call.columns == 0) return {};
  if (call.depth > 0) {
    const OpTimer timer(Op::product, {.flop = 2 * call.rows * call.columns * call.depth});
    run_product(ctx, call);
    return {};
  }
  for (Index r = 0; r < call.rows; ++r) {
    float* const output = args.output.row(r);
    for (Index c = 0; c < call.columns; ++c) {
      if (args.start == ChainStart::zero) output[c] = 0.0F;
      if (args.bias != nullptr) output[c] += args.bias[c];
      if (args.residual) output[c] += args.residual.row(r)[c];
    }
  }
  return {};
}

bool fits(const Product& args, Index rows, Index columns) {
  const Matrix& output = args.output;
  const ConstMatrix& residual = args.residual;
  return output.rows == rows && output.columns == columns && output.stride >= columns &&
         args.left.stride >= args.left.columns && args.right.stride >= args.right.columns &&
         (!residual || (residual.rows == rows && residual.columns == columns));
}

}  // namespace

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
  if (ctx.device != nullptr) return ctx.device->enqueue(ProductForm::nt, args);
  return run(ctx, call);
}

Result<> product_nn(const OpContext& ctx, const Product& args) {
  const ProductCall call{args.left.rows,      args.right.columns, args.left.columns,    args.left,
                         Order::depth_inside, args.right,         Order::depth_outside, &args};
  if (args.right.rows != call.depth || !fits(args, call.rows, call.columns)) {
    return wrong_shape("product_nn", call);
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(ProductForm::nn, args);
  return run(ctx, call);
}

Result<> product_tn(const OpContext& ctx, const Product& args) {
  const ProductCall call{args.left.columns,    args.right.columns, args.left.rows,       args.left,
                         Order::depth_outside, args.right,         Order::depth_outside, &args};
  if (args.right.rows != call.depth || !fits(args, call.rows, call.columns)) {
    return wrong_shape("product_tn", call);
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(ProductForm::tn, args);
  return run(ctx, call);
}

}  // namespace tutti::kernels
