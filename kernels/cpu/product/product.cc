// The fp32 product: packing and blocking around the register tile of tile-inl.h.
//
// Many rows: the right operand is packed once for all threads, then blocks of rows are handed out;
// each walks over k in ascending pieces of kDepth and continues its outputs through memory. Few
// rows (decoding): columns are handed out, and each thread packs a panel into its own L1 and uses
// it at once.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/product/product.cc"
#include <hwy/foreach_target.h>

#include "kernels/cpu/product/pack.h"
#include "kernels/cpu/product/tile-inl.h"
#include "kernels/cpu/product/vector.h"
#include "kernels/ops/product.h"

#ifndef TUTTI_PRODUCT_CALL
#define TUTTI_PRODUCT_CALL
namespace tutti::kernels {

// A product as the kernel sees it: output[rows, columns] = sum over depth.
struct ProductCall {
  enum class Order { depth_inside, depth_outside };  // whether k lies side by side or is the row
  Index rows = 0;
  Index columns = 0;
  Index depth = 0;
  ConstMatrix left;
  Order left_order = Order::depth_inside;
  ConstMatrix right;
  Order right_order = Order::depth_inside;
  const Product* product = nullptr;
};

}  // namespace tutti::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

// Up to here columns are handed out, not rows: packing a panel must be shared by its rows only.
inline constexpr Index kFewRows = 64;
// The packed right operand, in floats: stays in the outer caches.
inline constexpr Index kPackedMax = Index{1} << 21;
inline constexpr Index kPackedDepthMax = 4096;

void pack_right(const ProductCall& call, Index column, Index columns, Index k, Index depth,
                float* panel) {
  if (call.right_order == ProductCall::Order::depth_inside) {
    pack_panel_transposed(call.right.row_range(column, columns).column_range(k, depth),
                          kTileColumns, panel);
  } else {
    pack_panel_straight(call.right.row_range(k, depth).column_range(column, columns), kTileColumns,
                        panel);
  }
}

void add_row(float* to, const float* from, Index count) {
  for_lanes(
      count, [&](Index i) { store(load(to + i) + load(from + i), to + i); },
      [&](Index i, Index left) {
        store_first(load_first(to + i, left) + load_first(from + i, left), to + i, left);
      });
}

// Bias and residual, once the chains of this band are finished.
void finish(const Product& args, Index row, Index rows, Index column, Index columns) {
  if (args.bias == nullptr && !args.residual) return;
  for (Index r = row; r < row + rows; ++r) {
    float* const output = args.output.row(r) + column;
    if (args.bias != nullptr) add_row(output, args.bias + column, columns);
    if (args.residual) add_row(output, args.residual.row(r) + column, columns);
  }
}

// One to four rows by a weight whose k lies inside: decoding.
void product_by_vector(const OpContext& ctx, const ProductCall& call) {
  constexpr Index kColumns = 64;
  ctx.pool->parallel_for(call.columns, kColumns, [&](int, Index begin, Index end) {
    product_vector(*call.product, begin, end - begin);
    finish(*call.product, 0, call.rows, begin, end - begin);
  });
}

void product_few_rows(const OpContext& ctx, const ProductCall& call) {
  const Product& args = *call.product;
  ArenaScope scope(ctx.pool->op_scratch());
  const Index pieces = (call.depth + kDepth - 1) / kDepth;
  const Index piece_floats = call.rows * LeftRows::kStride;
  float* const left = ctx.pool->op_scratch().floats(pieces * piece_floats);
  for (Index piece = 0; piece < pieces; ++piece) {
    const Index k = piece * kDepth;
    copy_rows(call.left.column_range(k, std::min(kDepth, call.depth - k)),
              left + piece * piece_floats, LeftRows::kStride);
  }
  const Index panels = (call.columns + kTileColumns - 1) / kTileColumns;
  ctx.pool->parallel_for(panels, 1, [&](int thread, Index begin, Index end) {
    ArenaScope thread_scope(ctx.pool->scratch(thread));
    float* const panel = ctx.pool->scratch(thread).floats(kDepth * kTileColumns);
    for (Index p = begin; p < end; ++p) {
      const Index column = p * kTileColumns;
      const Index columns = std::min(kTileColumns, call.columns - column);
      for (Index piece = 0; piece < pieces; ++piece) {
        const Index k = piece * kDepth;
        const Index depth = std::min(kDepth, call.depth - k);
        pack_right(call, column, columns, k, depth, panel);
        run_band<LeftRows>(call.rows, columns,
                           {.depth = depth,
                            .left = left + piece * piece_floats,
                            .right = panel,
                            .right_stride = kTileColumns,
                            .output = args.output.data + column,
                            .output_stride = args.output.stride,
                            .start = piece == 0 ? args.start : ChainStart::output});
      }
      finish(args, 0, call.rows, column, columns);
    }
  });
}

// One piece of the right operand: columns [column, +columns) and k [first, +depth).
struct Piece {
  Index column = 0;
  Index columns = 0;
  Index first = 0;
  Index depth = 0;
  const float* right = nullptr;
  Index stride = 0;      // of one k; of a packed piece: kTileColumns
  Index panel_step = 0;  // from panel to panel: kTileColumns, or 0 for a packed piece

  Index panels() const { return (columns + kTileColumns - 1) / kTileColumns; }
  // Packed panels of one kDepth stretch follow each other; a stretch starts at k * panels * width.
  const float* panel(Index k, Index panel_depth, Index p) const {
    if (panel_step != 0) return right + k * stride + p * panel_step;
    return right + (k * panels() + p * panel_depth) * kTileColumns;
  }
};

// One block of rows over the whole piece.
template <class Left>
void run_rows(const OpContext& ctx, const ProductCall& call, const Piece& piece, int thread,
              Index row, Index rows) {
  const Product& args = *call.product;
  ArenaScope scope(ctx.pool->scratch(thread));
  constexpr bool kByRows = std::is_same_v<Left, LeftRows>;
  float* const left =
      ctx.pool->scratch(thread).floats(kByRows ? rows * Left::kStride : kDepth * Left::kStride);
  for (Index k = 0; k < piece.depth; k += kDepth) {
    const Index depth = std::min(kDepth, piece.depth - k);
    const Index first = piece.first + k;
    copy_rows(kByRows ? call.left.row_range(row, rows).column_range(first, depth)
                      : call.left.row_range(first, depth).column_range(row, rows),
              left, Left::kStride);
    const bool last = first + depth == call.depth;
    for (Index p = 0; p < piece.panels(); ++p) {
      const Index column = piece.column + p * kTileColumns;
      const Index columns = std::min(kTileColumns, piece.column + piece.columns - column);
      run_band<Left>(rows, columns,
                     {.depth = depth,
                      .left = left,
                      .right = piece.panel(k, depth, p),
                      .right_stride = piece.stride,
                      .output = args.output.row(row) + column,
                      .output_stride = args.output.stride,
                      .start = first == 0 ? args.start : ChainStart::output});
      if (last) finish(args, row, rows, column, columns);
    }
  }
}

void pack_piece(const OpContext& ctx, const ProductCall& call, const Piece& piece, float* packed) {
  const Index panels = piece.panels();
  const Index stretches = (piece.depth + kDepth - 1) / kDepth;
  ctx.pool->parallel_for(panels * stretches, 2, [&](int, Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      const Index k = i / panels * kDepth;
      const Index depth = std::min(kDepth, piece.depth - k);
      const Index offset = i % panels * kTileColumns;
      pack_right(call, piece.column + offset, std::min(kTileColumns, piece.columns - offset),
                 piece.first + k, depth, packed + (piece.panel(k, depth, i % panels) - packed));
    }
  });
}

// A right operand that is narrow and already has its columns side by side is read where it lies:
// its rows are close enough for L1 and the page tables, and packing it would cost more than it
// gives.
bool lies_ready(const ProductCall& call) {
  constexpr Index kNarrow = 256;
  return call.right_order == ProductCall::Order::depth_outside && call.right.stride <= kNarrow &&
         call.columns % kTileColumns == 0;
}

void product_piece(const OpContext& ctx, const ProductCall& call, Piece piece) {
  ArenaScope scope(ctx.pool->op_scratch());
  if (lies_ready(call)) {
    piece.right = call.right.row(piece.first) + piece.column;
    piece.stride = call.right.stride;
    piece.panel_step = kTileColumns;
  } else {
    float* const packed =
        ctx.pool->op_scratch().floats(piece.panels() * kTileColumns * piece.depth);
    piece.right = packed;
    piece.stride = kTileColumns;
    pack_piece(ctx, call, piece, packed);
  }
  // Enough blocks that the threads end together, none larger than a left block.
  const Index threads = ctx.pool->threads();
  const Index tiles = (call.rows + kTileRows - 1) / kTileRows;
  const Index tiles_in_block = std::clamp<Index>(threads == 1 ? tiles : tiles / (threads * 4), 1,
                                                 LeftColumns::kStride / kTileRows);
  const Index block = tiles_in_block * kTileRows;
  const auto blocks = [&](int thread, Index begin, Index end) {
    for (Index b = begin; b < end; ++b) {
      const Index row = b * block;
      const Index rows = std::min(block, call.rows - row);
      if (call.left_order == ProductCall::Order::depth_inside) {
        run_rows<LeftRows>(ctx, call, piece, thread, row, rows);
      } else {
        run_rows<LeftColumns>(ctx, call, piece, thread, row, rows);
      }
    }
  };
  ctx.pool->parallel_for((call.rows + block - 1) / block, 1, blocks);
}

void product_kernel(const OpContext& ctx, const ProductCall& call) {
  // The vector products are written for AVX2 alone.
  constexpr bool kHasVector = HWY_TARGET != HWY_SCALAR;
  if (kHasVector && call.rows <= kVectorRows &&
      call.left_order == ProductCall::Order::depth_inside &&
      call.right_order == ProductCall::Order::depth_inside) {
    product_by_vector(ctx, call);
    return;
  }
  if (call.rows <= kFewRows && call.left_order == ProductCall::Order::depth_inside) {
    product_few_rows(ctx, call);
    return;
  }
  const Index depth_max = std::min(call.depth, kPackedDepthMax);
  const Index columns_max = kPackedMax / depth_max / kTileColumns * kTileColumns;
  for (Index column = 0; column < call.columns; column += columns_max) {
    const Index columns = std::min(columns_max, call.columns - column);
    for (Index k = 0; k < call.depth; k += depth_max) {
      product_piece(ctx, call,
                    {.column = column,
                     .columns = columns,
                     .first = k,
                     .depth = std::min(depth_max, call.depth - k)});
    }
  }
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "kernels/cpu/dispatch.h"

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
    TUTTI_CPU_CALL(product_kernel)(ctx, call);
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
  const ProductCall call{args.left.rows,      args.right.rows, args.left.columns,   args.left,
                         Order::depth_inside, args.right,      Order::depth_inside, &args};
  if (args.right.columns != call.depth || !fits(args, call.rows, call.columns)) {
    return wrong_shape("product_nt", call);
  }
  return run(ctx, call);
}

Result<> product_nn(const OpContext& ctx, const Product& args) {
  const ProductCall call{args.left.rows,      args.right.columns, args.left.columns,    args.left,
                         Order::depth_inside, args.right,         Order::depth_outside, &args};
  if (args.right.rows != call.depth || !fits(args, call.rows, call.columns)) {
    return wrong_shape("product_nn", call);
  }
  return run(ctx, call);
}

Result<> product_tn(const OpContext& ctx, const Product& args) {
  const ProductCall call{args.left.columns,    args.right.columns, args.left.rows,       args.left,
                         Order::depth_outside, args.right,         Order::depth_outside, &args};
  if (args.right.rows != call.depth || !fits(args, call.rows, call.columns)) {
    return wrong_shape("product_tn", call);
  }
  return run(ctx, call);
}

}  // namespace tutti::kernels

#endif
