// bf16 products on the machinery of the fp32 ones: operands widened to fp32, or taken as pairs of
// 32 bits for the native tile.
#include <algorithm>
#include <bit>
#include <string>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/product/bf16_native.h"
#include "kernels/cpu/product/product_call.h"
#include "kernels/cpu/row_split.h"
#include "kernels/ops/product_bf16.h"

namespace tutti::kernels {

namespace {

using Order = ProductCall::Order;

struct Operands {
  Index rows, columns, depth;
  Order left_order, right_order;
};

ConstMatrix widen(const OpContext& ctx, const Bf16Matrix& x) {
  Matrix wide = ctx.pool->op_scratch().matrix(x.rows, x.columns);
  ctx.pool->parallel_for(x.rows, rows_in_piece(x.columns), [&](int, Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      const Bf16* const from = x.row(r);
      float* const to = wide.row(r);
      for (Index c = 0; c < x.columns; ++c) {
        to[c] = std::bit_cast<float>(static_cast<std::uint32_t>(from[c]) << 16);
      }
    }
  });
  return wide;
}

// The operand with k in pairs of 32 bits. Where k lies side by side in whole pairs it is already
// so; else it is copied, with a zero behind an odd depth. Bits only: no unit is computed with as a
// float.
ConstMatrix pair_up(const OpContext& ctx, const Bf16Matrix& x, Order order) {
  const bool inside = order == Order::depth_inside;
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

Result<> run(const OpContext& ctx, const char* op, const Bf16Product& args, const Operands& o) {
  if (auto here = only_on_cpu(ctx, op); !here) return here;
  const Index right_depth =
      o.right_order == Order::depth_inside ? args.right.columns : args.right.rows;
  const Matrix& output = args.output;
  if (right_depth != o.depth || output.rows != o.rows || output.columns != o.columns ||
      output.stride < o.columns || args.left.stride < args.left.columns ||
      args.right.stride < args.right.columns ||
      (args.residual && (args.residual.rows != o.rows || args.residual.columns != o.columns))) {
    return Error{ErrorCode::invalid_argument,
                 std::string(op) + ": left, right, output or residual do not match"};
  }
  if (args.arithmetic == Bf16Arithmetic::native && !has_native_bf16()) {
    return Error{ErrorCode::unsupported,
                 std::string(op) + ": the path in use has no native bf16 products"};
  }
  ArenaScope scope(ctx.pool->op_scratch());
  const bool native = args.arithmetic == Bf16Arithmetic::native && o.depth > 0;
  const auto operand = [&](const Bf16Matrix& x, Order order) {
    return native ? pair_up(ctx, x, order) : widen(ctx, x);
  };
  const ConstMatrix left = operand(args.left, o.left_order);
  const ConstMatrix right = operand(args.right, o.right_order);
  const Product product{.left = left,
                        .right = right,
                        .output = output,
                        .start = args.start,
                        .bias = args.bias,
                        .residual = args.residual};
  if (native) {
    if (o.rows == 0 || o.columns == 0) return {};
    run_product(ctx, {.rows = o.rows,
                      .columns = o.columns,
                      .depth = (o.depth + 1) / 2,
                      .left = left,
                      .left_order = o.left_order,
                      .right = right,
                      .right_order = o.right_order,
                      .product = &product,
                      .panel = run_bf16_panel});
    return {};
  }
  if (o.left_order == Order::depth_outside) return product_tn(ctx, product);
  return o.right_order == Order::depth_inside ? product_nt(ctx, product) : product_nn(ctx, product);
}

}  // namespace

bool has_native_bf16() { return cpu_path() == CpuPath::avx512bf16; }

Result<> product_bf16_nt(const OpContext& ctx, const Bf16Product& args) {
  return run(ctx, "product_bf16_nt", args,
             {args.left.rows, args.right.rows, args.left.columns, Order::depth_inside,
              Order::depth_inside});
}

Result<> product_bf16_nn(const OpContext& ctx, const Bf16Product& args) {
  return run(ctx, "product_bf16_nn", args,
             {args.left.rows, args.right.columns, args.left.columns, Order::depth_inside,
              Order::depth_outside});
}

Result<> product_bf16_tn(const OpContext& ctx, const Bf16Product& args) {
  return run(ctx, "product_bf16_tn", args,
             {args.left.columns, args.right.columns, args.left.rows, Order::depth_outside,
              Order::depth_outside});
}

}  // namespace tutti::kernels
