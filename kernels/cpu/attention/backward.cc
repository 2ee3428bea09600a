// Attention backward: one task per (sample, key head), blocks of 64 keys outside, query heads and
// blocks of 64 queries inside, so that dk and dv of a block are chains over (query head, query) and
// dq is a chain over keys.
//
//   P = exp(S scale - lse)      dV += P^T dO      dP = dO V^T      dS = P (dP - delta) scale
//   dK += dS^T Q                dQ += dS K        delta = sum(dO O) of the row
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention/backward.cc"
#include <hwy/foreach_target.h>

#include "kernels/cpu/exp-inl.h"
#include "kernels/cpu/attention/layout.h"
#include "kernels/cpu/product/pack.h"
#include "kernels/cpu/product/tile-inl.h"
#include "kernels/cpu/row_split.h"
#include "kernels/ops/attention.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

// The sum of dO O over each head of each row.
void attention_deltas(const OpContext& ctx, const AttentionBackward& args, float* delta) {
  const Index width = args.shape.head_width;
  const Index heads = args.shape.heads;
  ctx.pool->parallel_for(
      args.q.rows, rows_in_piece(heads * width), [&](int, Index begin, Index end) {
        for (Index row = begin; row < end; ++row) {
          for (Index head = 0; head < heads; ++head) {
            const float* const dout = args.dout.row(row) + head * width;
            const float* const out = args.out.row(row) + head * width;
            Lanes sum = zero();
            for_lanes(
                width, [&](Index i) { sum = fma(load(dout + i), load(out + i), sum); },
                [&](Index i, Index left) {
                  sum = fma(load_first(dout + i, left), load_first(out + i, left), sum);
                });
            delta[row * heads + head] = sum_lanes(sum);
          }
        }
      });
}

// Blocks in the layouts that the tile reads. LeftRows also serves as a right operand of its stride.
struct BackwardScratch {
  explicit BackwardScratch(Arena& arena)
      : keys(arena.floats(kKeyBlock * LeftRows::kStride)),
        keys_turned(arena.floats(kHeadWidthMax * kKeyBlock)),
        values_turned(arena.floats(kHeadWidthMax * kKeyBlock)),
        queries(arena.floats(kKeyBlock * LeftRows::kStride)),
        douts(arena.floats(kKeyBlock * LeftRows::kStride)),
        scores(arena.floats(kKeyBlock * LeftRows::kStride)),
        dscores(arena.floats(kKeyBlock * LeftRows::kStride)),
        weights_by_key(arena.floats(kKeyBlock * LeftColumns::kStride)),
        dscores_by_key(arena.floats(kKeyBlock * LeftColumns::kStride)) {}

  float* keys;
  float* keys_turned;    // [D][kKeyBlock]
  float* values_turned;  // [D][kKeyBlock]
  float* queries;
  float* douts;
  float* scores;
  float* dscores;         // LeftRows: query, key
  float* weights_by_key;  // LeftColumns: key, query
  float* dscores_by_key;
};

// Scores and their gradients of one row: `keys` of them are seen, the others get zero.
enum class Block { whole, part };
template <Block kBlock>
HWY_INLINE void gradient_row(const BackwardScratch& scratch, Index row, Index keys, float scale,
                             float lse, float delta) {
  const float* const score = scratch.scores + LeftRows::at(row, 0);
  float* const dscore = scratch.dscores + LeftRows::at(row, 0);
  float* const weight_out = scratch.weights_by_key + LeftColumns::at(0, row);
  float* const dscore_out = scratch.dscores_by_key + LeftColumns::at(0, row);
  const Lanes factor = splat(scale);
  const Lanes offset = splat(lse);
  const Lanes less = splat(delta);
  for (Index i = 0; i < kKeyBlock; i += kLanes) {
    const Lanes weight = exp(load(score + i) * factor - offset);
    const Lanes slope = weight * (load(dscore + i) - less) * factor;
    const Lanes seen = kBlock == Block::whole ? weight : keep_first(weight, keys - i, zero());
    const Lanes seen_slope = kBlock == Block::whole ? slope : keep_first(slope, keys - i, zero());
    store(seen, weight_out + i);
    store(seen_slope, dscore_out + i);
    store(seen_slope, dscore + i);
  }
}

struct BlockPair {
  Index head = 0;
  Index kv_head = 0;
  Index first = 0;  // the sample's first row
  Index key = 0;    // positions
  Index keys = 0;
  Index query = 0;
  Index queries = 0;
};

// dV, dK of the block of keys and dQ of the block of queries, continued.
HWY_INLINE void add_gradients(const AttentionBackward& args, const BlockPair& pair,
                              const BackwardScratch& scratch) {
  const AttentionShape& shape = args.shape;
  const Index width = shape.head_width;
  const bool first_head = pair.head % (shape.heads / shape.kv_heads) == 0;
  const Index key_row = pair.first + pair.key;
  TileCall call{
      .depth = pair.queries,
      .left = scratch.weights_by_key,
      .right = scratch.douts,
      .right_stride = LeftRows::kStride,
      .output = args.dv.row(key_row) + pair.kv_head * width,
      .output_stride = args.dv.stride,
      .start = first_head && pair.query == pair.key ? ChainStart::zero : ChainStart::output};
  run_band<LeftColumns>(pair.keys, width, call);
  call.left = scratch.dscores_by_key;
  call.right = scratch.queries;
  call.output = args.dk.row(key_row) + pair.kv_head * width;
  call.output_stride = args.dk.stride;
  run_band<LeftColumns>(pair.keys, width, call);
  call = {.depth = pair.keys,
          .left = scratch.dscores,
          .right = scratch.keys,
          .right_stride = LeftRows::kStride,
          .output = args.dq.row(pair.first + pair.query) + pair.head * width,
          .output_stride = args.dq.stride,
          .start = pair.key == 0 ? ChainStart::zero : ChainStart::output};
  run_band<LeftRows>(pair.queries, width, call);
}

void backward_pair(const AttentionBackward& args, const float* delta, const BlockPair& pair,
                   const BackwardScratch& scratch) {
  const AttentionShape& shape = args.shape;
  const Index width = shape.head_width;
  const Index row = pair.first + pair.query;
  const Index stride = LeftRows::kStride;
  const Index column = pair.head * width;
  copy_rows(args.q.row_range(row, pair.queries).column_range(column, width), scratch.queries,
            stride);
  copy_rows(args.dout.row_range(row, pair.queries).column_range(column, width), scratch.douts,
            stride);
  TileCall call{.depth = width,
                .left = scratch.queries,
                .right = scratch.keys_turned,
                .right_stride = kKeyBlock,
                .output = scratch.scores,
                .output_stride = stride};
  run_band<LeftRows>(pair.queries, kKeyBlock, call);
  call.left = scratch.douts;
  call.right = scratch.values_turned;
  call.output = scratch.dscores;
  run_band<LeftRows>(pair.queries, kKeyBlock, call);
  for (Index r = 0; r < pair.queries; ++r) {
    const Index place = (row + r) * shape.heads + pair.head;
    const Index seen = pair.query == pair.key ? r + 1 : pair.keys;
    if (seen == kKeyBlock) {
      gradient_row<Block::whole>(scratch, r, seen, shape.scale, args.lse[place], delta[place]);
    } else {
      gradient_row<Block::part>(scratch, r, seen, shape.scale, args.lse[place], delta[place]);
    }
  }
  add_gradients(args, pair, scratch);
}

void backward_sample(const AttentionBackward& args, const float* delta, Index sample, Index kv_head,
                     Arena& arena) {
  const AttentionShape& shape = args.shape;
  const Index width = shape.head_width;
  const Index group = shape.heads / shape.kv_heads;
  const auto s = static_cast<std::size_t>(sample);
  const Index first = args.sample_offsets[s];
  const Index length = args.sample_offsets[s + 1] - first;
  ArenaScope scope(arena);
  const BackwardScratch scratch(arena);
  for (Index key = 0; key < length; key += kKeyBlock) {
    const Index keys = std::min(kKeyBlock, length - key);
    const auto band = [&](const ConstMatrix& from) {
      return from.row_range(first + key, keys).column_range(kv_head * width, width);
    };
    copy_rows(band(args.k), scratch.keys, LeftRows::kStride);
    pack_panel_transposed(band(args.k), kKeyBlock, scratch.keys_turned);
    pack_panel_transposed(band(args.v), kKeyBlock, scratch.values_turned);
    for (Index h = 0; h < group; ++h) {
      for (Index query = key; query < length; query += kKeyBlock) {
        backward_pair(args, delta,
                      BlockPair{kv_head * group + h, kv_head, first, key, keys, query,
                                std::min(kKeyBlock, length - query)},
                      scratch);
      }
    }
  }
}

void attention_backward_kernel(const OpContext& ctx, const AttentionBackward& args) {
  ArenaScope scope(ctx.pool->op_scratch());
  float* const delta = ctx.pool->op_scratch().floats(args.q.rows * args.shape.heads);
  attention_deltas(ctx, args, delta);
  const auto samples = static_cast<Index>(args.sample_offsets.size()) - 1;
  ctx.pool->parallel_for(samples * args.shape.kv_heads, 1, [&](int thread, Index begin, Index end) {
    for (Index task = begin; task < end; ++task) {
      backward_sample(args, delta, task / args.shape.kv_heads, task % args.shape.kv_heads,
                      ctx.pool->scratch(thread));
    }
  });
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "kernels/cpu/dispatch.h"

namespace tutti::kernels {

Result<> attention_backward(const OpContext& ctx, const AttentionBackward& args) {
  const AttentionShape& shape = args.shape;
  if (auto checked = check_attention_shape("attention_backward", shape); !checked) return checked;
  const Index tokens = args.q.rows;
  const auto is = [tokens](const auto& m, Index columns) {
    return m.rows == tokens && m.columns == columns;
  };
  const Index wide = shape.heads * shape.head_width;
  const Index narrow = shape.kv_heads * shape.head_width;
  if (!is(args.q, wide) || !is(args.out, wide) || !is(args.dout, wide) || !is(args.dq, wide) ||
      !is(args.k, narrow) || !is(args.v, narrow) || !is(args.dk, narrow) || !is(args.dv, narrow) ||
      (args.lse == nullptr && tokens > 0)) {
    return Error{ErrorCode::invalid_argument,
                 "attention_backward: q, k, v, out, lse or gradients do not match"};
  }
  if (auto checked = check_sample_offsets("attention_backward", args.sample_offsets, tokens);
      !checked) {
    return checked;
  }
  TUTTI_CPU_CALL(attention_backward_kernel)(ctx, args);
  return {};
}

}  // namespace tutti::kernels

#endif
