// The weight gradient with the tree of shards inside: a panel of outputs is summed shard by shard
// into buffers of its own, one per level of the tree, and added up while they are in cache.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/product/shards.cc"
#include <hwy/foreach_target.h>

#include "kernels/cpu/product/chain_tile-inl.h"
#include "kernels/cpu/product/pack.h"
#include "kernels/cpu/sums-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

inline constexpr Index kShardBlock = 16 * kChainRows;
inline constexpr Index kLevelFloats = kShardBlock * kChainColumns;

// One block of outputs: `rows` x `columns`, its operands from token 0 on.
struct ShardBlock {
  const float* left = nullptr;  // [token][left_stride], the block's rows side by side
  Index left_stride = 0;
  const float* right = nullptr;  // [token][right_stride], a panel
  Index right_stride = 0;
  Index rows = 0;
  Index columns = 0;
  std::span<const Index> ends;
  float* levels = nullptr;  // [levels][kShardBlock][kChainColumns]
};

void sum_shard(const ShardBlock& block, Index begin, Index end, float* sums) {
  constexpr Index kDepth = 1024;
  for (Index k = begin; k < end; k += kDepth) {
    run_chain_panel<LeftOrder::by_depth>(
        block.rows, block.columns,
        {.depth = std::min(kDepth, end - k),
         .left = block.left + k * block.left_stride,
         .left_stride = block.left_stride,
         .right = block.right + k * block.right_stride,
         .right_stride = block.right_stride,
         .output = sums,
         .output_stride = kChainColumns,
         .start = k == begin ? ChainStart::zero : ChainStart::output});
  }
}

// Sums `count` shards from `first` on into the level's buffer; whether any has tokens.
bool sum_tree(const ShardBlock& block, Index first, Index count, float* sums) {
  if (count == 1) {
    const Index begin = first == 0 ? 0 : block.ends[static_cast<std::size_t>(first - 1)];
    const Index end = block.ends[static_cast<std::size_t>(first)];
    if (begin < end) sum_shard(block, begin, end, sums);
    return begin < end;
  }
  const Index half = count / 2;
  const bool low = sum_tree(block, first, half, sums);
  if (!low) return sum_tree(block, first + half, half, sums);
  float* const other = sums + kLevelFloats;
  if (!sum_tree(block, first + half, half, other)) return true;
  for (Index r = 0; r < block.rows; ++r) {
    add_row(sums + r * kChainColumns, other + r * kChainColumns, block.columns);
  }
  return true;
}

void put_block(const ShardedProduct& args, const ShardBlock& block, bool any, Index row,
               Index column) {
  for (Index r = 0; r < block.rows; ++r) {
    float* const output = args.output.row(row + r) + column;
    const float* const sums = block.levels + r * kChainColumns;
    if (args.start == ChainStart::output) {
      if (any) add_row(output, sums, block.columns);
    } else if (any) {
      std::copy_n(sums, block.columns, output);
    } else {
      std::fill_n(output, block.columns, 0.0F);
    }
  }
}

// Panels of the right operand over all tokens: packed, [panel][token][kChainColumns].
const float* pack_tokens(const OpContext& ctx, ConstMatrix right) {
  const Index panels = (right.columns + kChainColumns - 1) / kChainColumns;
  float* const packed = ctx.pool->op_scratch().floats(panels * right.rows * kChainColumns);
  constexpr Index kTokens = 256;
  const Index stretches = (right.rows + kTokens - 1) / kTokens;
  const Index panel_floats = right.rows * kChainColumns;
  ctx.pool->parallel_for(panels * stretches, 1, [&](int, Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      const Index column = i / stretches * kChainColumns;
      const Index token = i % stretches * kTokens;
      pack_panel_straight(
          right.row_range(token, std::min(kTokens, right.rows - token))
              .column_range(column, std::min(kChainColumns, right.columns - column)),
          kChainColumns, packed + i / stretches * panel_floats + token * kChainColumns);
    }
  });
  return packed;
}

// One block of rows by all columns of a piece of the right operand.
void run_shard_rows(const ShardedProduct& args, ConstMatrix right, const float* packed, Index row,
                    Arena& scratch) {
  ArenaScope scope(scratch);
  const Index tokens = right.rows;
  const auto shards = static_cast<Index>(args.ends.size());
  Index levels = 1;
  while (Index{1} << (levels - 1) < shards) ++levels;
  ShardBlock block;
  block.rows = std::min(kShardBlock, args.left.columns - row);
  block.ends = args.ends;
  block.levels = scratch.floats(levels * kLevelFloats);
  block.left = args.left.data + row;
  block.left_stride = args.left.stride;
  // Rows an even kilobyte apart fall on few sets of the caches.
  if (args.left.stride % 256 == 0) {
    float* const copy = scratch.floats(tokens * kShardBlock);
    copy_rows(args.left.column_range(row, block.rows), copy, kShardBlock);
    block.left = copy;
    block.left_stride = kShardBlock;
  }
  const Index first_column = right.data - args.right.data;
  for (Index column = 0; column < right.columns; column += kChainColumns) {
    block.columns = std::min(kChainColumns, right.columns - column);
    block.right = packed != nullptr ? packed + column * tokens : right.data + column;
    block.right_stride = packed != nullptr ? kChainColumns : right.stride;
    const bool any = sum_tree(block, 0, shards, block.levels);
    put_block(args, block, any, row, first_column + column);
  }
}

void product_shards_kernel(const OpContext& ctx, const ShardedProduct& args) {
  constexpr Index kPackedMax = Index{1} << 21;
  constexpr Index kNarrow = 256;
  const Index tokens = args.right.rows;
  const Index columns_max = std::max<Index>(
      kChainColumns, kPackedMax / std::max<Index>(1, tokens) / kChainColumns * kChainColumns);
  const bool ready = args.right.stride <= kNarrow && args.right.columns % kVectorLanes == 0;
  const Index blocks = (args.left.columns + kShardBlock - 1) / kShardBlock;
  for (Index column = 0; column < args.right.columns; column += columns_max) {
    ArenaScope scope(ctx.pool->op_scratch());
    const ConstMatrix right =
        args.right.column_range(column, std::min(columns_max, args.right.columns - column));
    const float* const packed = ready ? nullptr : pack_tokens(ctx, right);
    ctx.pool->parallel_for(blocks, 1, [&](int thread, Index begin, Index end) {
      for (Index b = begin; b < end; ++b) {
        run_shard_rows(args, right, packed, b * kShardBlock, ctx.pool->scratch(thread));
      }
    });
  }
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <algorithm>
#include <bit>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/not_rounded.h"
#include "kernels/tensor/op_counters.h"

namespace tutti::kernels {

Result<> product_tn_shards(const OpContext& ctx, const ShardedProduct& args) {
  if (auto here = only_on_cpu(ctx, "product_tn_shards"); !here) return here;
  bool ascending = std::has_single_bit(args.ends.size()) && args.ends.back() == args.left.rows;
  Index before = 0;
  Index given = 0;  // shards that have tokens
  for (const Index end : args.ends) {
    ascending = ascending && end >= before;
    given += end > before ? 1 : 0;
    before = end;
  }
  if (!ascending || args.right.rows != args.left.rows || args.output.rows != args.left.columns ||
      args.output.columns != args.right.columns || args.output.stride < args.output.columns) {
    return Error{ErrorCode::invalid_argument,
                 "product_tn_shards: left, right and output do not match, or the shards are no "
                 "power of two of ascending ends"};
  }
  if (auto exact = not_rounded("product_tn_shards"); !exact) return exact;
  if (args.output.rows == 0 || args.output.columns == 0) return {};
  const Index outputs = args.output.rows * args.output.columns;
  const OpTimer timer(
      Op::product_tn_shards,
      {.flop = outputs * (2 * args.left.rows + std::max<Index>(0, given - 1)),
       .bytes = 4 * (args.left.rows * (args.left.columns + args.right.columns) + outputs)});
  TUTTI_CPU_CALL(product_shards_kernel)(ctx, args);
  return {};
}

}  // namespace tutti::kernels

#endif
