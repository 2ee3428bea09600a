// bf16 products on the machinery of the fp32 ones: operands widened to fp32, or taken as pairs of
// 32 bits for the native tile.
#include <algorithm>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/product/bf16_native.h"
#include "kernels/cpu/product/bf16_row.h"
#include "kernels/cpu/product/finish.h"
#include "kernels/cpu/product/product_call.h"
#include "kernels/cpu/row_split.h"
#include "kernels/ops/product_bf16.h"
#include "kernels/ops/weights/packed_bf16.h"

namespace tutti::kernels {

namespace {

ConstMatrix widen(const OpContext& ctx, const Bf16Matrix& x) {
  const Matrix wide = ctx.pool->op_scratch().matrix(x.rows, x.columns);
  ctx.pool->parallel_for(x.rows, rows_in_piece(x.columns), [&](int, Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      const Bf16* const from = x.row(r);
      float* const to = wide.row(r);
      for (Index c = 0; c < x.columns; ++c) to[c] = widened(from[c]);
    }
  });
  return wide;
}

// The operand with k in pairs of 32 bits. Where k lies side by side in whole pairs it is already
// so; else it is copied, with a zero behind an odd depth. Bits only: no unit is computed with as a
// float.
ConstMatrix pair_up(const OpContext& ctx, const Bf16Matrix& x, DepthOrder order) {
  const bool inside = order == DepthOrder::inside;
  const auto address = reinterpret_cast<std::uintptr_t>(x.data);
  if (inside && x.columns % 2 == 0 && x.stride % 2 == 0 && address % 4 == 0) {
    return {reinterpret_cast<const float*>(x.data), x.rows, x.columns / 2, x.stride / 2};
  }
  const Index rows = inside ? x.rows : (x.rows + 1) / 2;
  const Index columns = inside ? (x.columns + 1) / 2 : x.columns;
  const Matrix pairs = ctx.pool->op_scratch().matrix(rows, columns);
  ctx.pool->parallel_for(rows, rows_in_piece(columns), [&](int, Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      auto* const to = reinterpret_cast<std::uint32_t*>(pairs.row(r));
      const Bf16* const first = inside ? x.row(r) : x.row(2 * r);
      const bool whole = inside || 2 * r + 1 < x.rows;
      const Bf16* const second = inside ? first + 1 : whole ? x.row(2 * r + 1) : nullptr;
      const Index step = inside ? 2 : 1;
      for (Index c = 0; c < columns; ++c) {
        const bool has_second = inside ? 2 * c + 1 < x.columns : whole;
        const std::uint32_t high = has_second ? second[step * c] : 0U;
        to[c] = first[step * c] | high << 16;
      }
    }
  });
  return pairs;
}

// Up to here the image of a widened weight is read; more rows share the cost of widening and
// packing the weight itself, into the layout that the fp32 tile likes better.
constexpr Index kImageRows = 256;

Result<> check(const char* op, ProductForm form, const Bf16Product& args, const ProductShape& s) {
  const PackedBf16Weight* const packed = args.packed;
  const bool matches =
      packed == nullptr || (form == ProductForm::nt && packed->arithmetic() == args.arithmetic &&
                            packed->outputs() == s.columns && packed->inputs() == s.depth);
  if (s.right_depth != s.depth || !outputs_fit(args, s.rows, s.columns) || !matches ||
      args.left.stride < args.left.columns || args.right.stride < args.right.columns) {
    return Error{ErrorCode::invalid_argument,
                 std::string(op) + ": left, right, its image, output or ends do not match"};
  }
  if (args.arithmetic == Bf16Arithmetic::native && !has_native_bf16()) {
    return Error{ErrorCode::unsupported,
                 std::string(op) + ": the path in use has no native bf16 products"};
  }
  return {};
}

// The left operand widened; the image is widened as it is read.
Result<> run_widened_image(const OpContext& ctx, const Bf16Product& args) {
  return product_quantised(ctx, {.left = widen(ctx, args.left),
                                 .right = &args.packed->widened(),
                                 .output = args.output,
                                 .activations = Activations::exact,
                                 .start = args.start,
                                 .bias = args.bias,
                                 .residual = args.residual,
                                 .activation = args.activation,
                                 .gate = args.gate,
                                 .narrow = args.narrow});
}

Result<> run(const OpContext& ctx, const char* op, ProductForm form, const Bf16Product& args) {
  if (auto here = only_on_cpu(ctx, op); !here) return here;
  const ProductShape s = shape_of(form, args);
  if (auto checked = check(op, form, args, s); !checked) return checked;
  if (s.rows == 0 || s.columns == 0) return {};
  ArenaScope scope(ctx.pool->op_scratch());
  const bool native = args.arithmetic == Bf16Arithmetic::native;
  const bool by_image = args.packed != nullptr && (native || s.rows <= kImageRows || !args.right);
  if (by_image && !native) return run_widened_image(ctx, args);
  const auto operand = [&](const Bf16Matrix& x, DepthOrder order) {
    return native ? pair_up(ctx, x, order) : widen(ctx, x);
  };
  const Product product{.left = operand(args.left, s.left_order),
                        .right = by_image ? ConstMatrix() : operand(args.right, s.right_order),
                        .output = args.output,
                        .start = args.start,
                        .bias = args.bias,
                        .residual = args.residual,
                        .activation = args.activation,
                        .gate = args.gate,
                        .narrow = args.narrow};
  ProductCall call = call_of(form, product);
  call.columns = s.columns;
  if (native) call.panel = run_bf16_panel;
  if (by_image) call.image = args.packed->pairs().image();
  run_call(ctx, call);
  return {};
}

}  // namespace

bool has_native_bf16() { return cpu_path() == CpuPath::avx512bf16; }

Result<PackedBf16Weight> pack_bf16_weight(const OpContext& ctx, const Bf16Matrix& weight,
                                          Bf16Arithmetic arithmetic) {
  if (auto here = only_on_cpu(ctx, "pack_bf16_weight"); !here) return here.error();
  if (weight.stride < weight.columns) {
    return Error{ErrorCode::invalid_argument, "pack_bf16_weight: the weight's rows overlap"};
  }
  PackedBf16Weight made;
  made.arithmetic_ = arithmetic;
  made.outputs_ = weight.rows;
  made.inputs_ = weight.columns;
  if (arithmetic == Bf16Arithmetic::native) {
    if (!has_native_bf16()) {
      return Error{ErrorCode::unsupported,
                   "pack_bf16_weight: the path in use has no native bf16 products"};
    }
    ArenaScope scope(ctx.pool->op_scratch());
    auto pairs = pack_weight(ctx, pair_up(ctx, weight, DepthOrder::inside));
    if (!pairs) return pairs.error();
    made.pairs_ = *std::move(pairs);
    return made;
  }
  const auto columns = static_cast<std::size_t>(weight.columns);
  std::vector<Bf16> rows(static_cast<std::size_t>(weight.rows) * columns);
  for (Index r = 0; r < weight.rows; ++r) {
    std::copy_n(weight.row(r), columns,
                rows.begin() + static_cast<std::ptrdiff_t>(r) * weight.columns);
  }
  auto widened = pack_rows(ctx, WeightFormat::bf16, std::as_bytes(std::span(rows)), weight.rows);
  if (!widened) return widened.error();
  made.widened_ = *std::move(widened);
  return made;
}

Result<> product_bf16_nt(const OpContext& ctx, const Bf16Product& args) {
  return run(ctx, "product_bf16_nt", ProductForm::nt, args);
}
Result<> product_bf16_nn(const OpContext& ctx, const Bf16Product& args) {
  return run(ctx, "product_bf16_nn", ProductForm::nn, args);
}
Result<> product_bf16_tn(const OpContext& ctx, const Bf16Product& args) {
  return run(ctx, "product_bf16_tn", ProductForm::tn, args);
}

}  // namespace tutti::kernels
