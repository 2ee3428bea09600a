// The checked entries of the fp32 products.
#include <unistd.h>

#include <string>

#include "kernels/cpu/product/finish.h"
#include "kernels/cpu/product/product_call.h"
#include "kernels/cpu/product/rounded.h"
#include "kernels/ops/weights/packed_weight.h"
#include "kernels/tensor/device.h"
#include "kernels/tensor/op_counters.h"
#include "kernels/tensor/rounding.h"

namespace tutti::kernels {

namespace {

constexpr const char* kNames[] = {"product_nt", "product_nn", "product_tn"};

// On the CPU, or by `enqueue`.
template <class Enqueue>
Result<> run_form(const OpContext& ctx, ProductForm form, const Product& args,
                  const Enqueue& enqueue) {
  const ProductShape shape = shape_of(form, args);
  const PackedWeight* const packed = form == ProductForm::nt ? args.packed : nullptr;
  if (shape.right_depth != shape.depth || !outputs_fit(args, shape.rows, shape.columns) ||
      args.left.stride < args.left.columns || args.right.stride < args.right.columns ||
      (packed != nullptr &&
       (packed->outputs() != shape.columns || packed->inputs() != shape.depth))) {
    return Error{ErrorCode::invalid_argument,
                 std::string(kNames[static_cast<int>(form)]) +
                     ": left, right, output or ends do not match for output [" +
                     std::to_string(shape.rows) + ", " + std::to_string(shape.columns) +
                     "] over depth " + std::to_string(shape.depth)};
  }
  if (ctx.device != nullptr) return end_on_device(ctx, args, enqueue);
  if (const auto rounding = RoundingScope::in_use()) {
    if (packed != nullptr || !can_round(*rounding)) {
      return Error{ErrorCode::unsupported,
                   std::string(kNames[static_cast<int>(form)]) +
                       ": rounded, it reads no image of fp32 weights, and the path in use has to "
                       "have the arithmetic"};
    }
    run_rounded(ctx, form, args, *rounding);
    return {};
  }
  ProductCall call = call_of(form, args);
  if (packed != nullptr) call.image = packed->image();
  run_call(ctx, call);
  return {};
}

}  // namespace

Index second_cache_bytes() {
  static const long bytes = ::sysconf(_SC_LEVEL2_CACHE_SIZE);
  return bytes > 0 ? bytes : Index{1} << 20;
}

void run_call(const OpContext& ctx, const ProductCall& call) {
  if (call.rows == 0 || call.columns == 0) return;
  const Index multiplied = call.panel == nullptr ? call.depth : 2 * call.depth;
  const OpTimer timer(Op::product, {.flop = 2 * call.rows * call.columns * multiplied});
  ArenaScope scope(ctx.pool->op_scratch());
  Product args = *call.product;
  // Chains go on through memory in fp32, whatever they end as.
  if (args.narrow) args.output = ctx.pool->op_scratch().matrix(call.rows, call.columns);
  if (call.depth > 0) {
    ProductCall whole = call;
    whole.product = &args;
    return run_product(Workers(*ctx.pool), whole);
  }
  finish_empty(args, args.output);
}

Result<> product_nt(const OpContext& ctx, const Product& args) {
  return run_form(ctx, ProductForm::nt, args, [&](const Product& plain) {
    return ctx.device->enqueue(ProductForm::nt, plain);
  });
}
Result<> product_nn(const OpContext& ctx, const Product& args) {
  return run_form(ctx, ProductForm::nn, args, [&](const Product& plain) {
    return ctx.device->enqueue(ProductForm::nn, plain);
  });
}
Result<> product_tn(const OpContext& ctx, const Product& args) {
  return run_form(ctx, ProductForm::tn, args, [&](const Product& plain) {
    return ctx.device->enqueue(ProductForm::tn, plain);
  });
}

}  // namespace tutti::kernels
