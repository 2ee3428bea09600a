// The checked entries of the fp32 products.
#include <string>

#include "kernels/cpu/caches/caches.h"
#include "kernels/cpu/product/finish.h"
#include "kernels/cpu/product/product_call.h"
#include "kernels/cpu/product/rounded.h"
#include "kernels/ops/weights/packed_weight.h"
#include "kernels/tensor/device.h"
#include "kernels/tensor/rounding.h"

namespace tutti::kernels {

namespace {

constexpr Op kOps[] = {Op::product_nt, Op::product_nn, Op::product_tn};

// On the CPU, or by `enqueue`.
template <class Enqueue>
Result<> run_form(const OpContext& ctx, ProductForm form, const Product& args,
                  const Enqueue& enqueue) {
  const Op counted = kOps[static_cast<int>(form)];
  const std::string_view op = to_string(counted);
  const ProductShape shape = shape_of(form, args);
  const PackedWeight* const packed = form == ProductForm::nt ? args.packed : nullptr;
  if (shape.right_depth != shape.depth || !outputs_fit(args, shape.rows, shape.columns) ||
      args.left.stride < args.left.columns || args.right.stride < args.right.columns ||
      !fits_operand(args.left_rounded, args.left) ||
      !fits_operand(args.right_rounded, args.right) ||
      (packed != nullptr && (args.left_rounded || args.right_rounded)) ||
      (packed != nullptr &&
       (packed->outputs() != shape.columns || packed->inputs() != shape.depth))) {
    return Error{ErrorCode::invalid_argument,
                 std::string(op) + ": left, right, output or ends do not match for output [" +
                     std::to_string(shape.rows) + ", " + std::to_string(shape.columns) +
                     "] over depth " + std::to_string(shape.depth)};
  }
  if (ctx.device != nullptr) return enqueue(args);
  if (args.left_rounded || args.right_rounded) return rounded_on_devices_only(op);
  if (args.right_fp8) return codes_on_fp8_only();
  const auto rounding = RoundingScope::in_use();
  if (rounding && (packed != nullptr || !can_round(*rounding))) {
    return Error{ErrorCode::unsupported,
                 std::string(op) +
                     ": rounded, it reads no image of fp32 weights, and the path in use has to "
                     "have the arithmetic"};
  }
  if (shape.rows == 0 || shape.columns == 0) return {};
  const OpTimer timer(counted, work_of(args, shape, sizeof(float)));
  if (rounding) {
    run_rounded(Workers(*ctx.pool), form, args, *rounding);
    return {};
  }
  ProductCall call = call_of(form, args);
  if (packed != nullptr) call.image = packed->image();
  run_call(ctx, call);
  return {};
}

}  // namespace

Index second_cache_bytes() { return caches().second_bytes; }

Index first_cache_ways() { return caches().first_ways; }

void run_call(const Workers& workers, const ProductCall& call) {
  if (call.rows == 0 || call.columns == 0) return;
  ArenaScope scope(workers.op_scratch());
  Product args = *call.product;
  // Chains go on through memory in fp32, whatever they end as.
  if (args.narrow) args.output = workers.op_scratch().matrix(call.rows, call.columns);
  if (call.depth > 0) {
    ProductCall whole = call;
    whole.product = &args;
    return run_product(workers, whole);
  }
  finish_empty(args, args.output);
}

void run_call(const OpContext& ctx, const ProductCall& call) { run_call(Workers(*ctx.pool), call); }

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
