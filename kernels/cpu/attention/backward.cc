// Attention backward: dk and dv are chains over (query head, query), dq is a chain over keys, each
// ascending, in blocks of 64 queries and 64 keys.
//
//   by heads   one task per (sample, key head), which walks over its pairs of blocks once: some
//              blocks of queries together over the keys, so that these and their gradients come
//              from a far cache once for all of them
//   by blocks  where those are too few for the threads: one task per block of keys for dk and dv,
//              then one per block of queries for dq. Each computes the scores of its pairs again,
//              seven products in place of five; the chains are the same.
//
//   P = exp(S - lse)      dV += P^T dO      dP = dO V^T      dS = P (dP - delta) dscore/dproduct
//   dK += dS^T Q          dQ += dS K        delta = sum(dO O) of the row
//
// Of P what is below kFaintest is 0, else far keys' slopes would be denormal numbers.
// As in prefill-inl.h all blocks of scores lie [key][query]: for dV and dK they are the left
// operand by rows, for dQ by columns, and nothing is turned but Q, dO, K and V, once each. Of pairs
// that do not see each other nothing is added, not even zero: 0 * inf is not 0.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention/backward.cc"
#include <hwy/foreach_target.h>

#include <optional>

#include "kernels/cpu/attention/block_view-inl.h"
#include "kernels/cpu/attention/triangle-inl.h"
#include "kernels/cpu/product/pack.h"
#include "kernels/cpu/product/tile-inl.h"
#include "kernels/cpu/row_split.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

// The sum of dO O over each head of each row.
void attention_deltas(const OpContext& ctx, const AttentionBackward& args, float* delta) {
  const Index width = args.shape.head_width;
  const Index heads = args.shape.heads;
  ctx.pool->parallel_for(args.q.rows, rows_in_piece(heads * width),
                         [&](int, Index begin, Index end) {
                           for (Index row = begin; row < end; ++row) {
                             for (Index head = 0; head < heads; ++head) {
                               const float* const dout = args.dout.row(row) + head * width;
                               const float* const out = args.out.row(row) + head * width;
                               Lanes sum = zero();
                               each_lanes(width, [&](Index i, auto part) {
                                 sum = fma(load(dout + i, part), load(out + i, part), sum);
                               });
                               delta[row * heads + head] = sum_lanes(sum);
                             }
                           }
                         });
}

// Keys and values of one head of a sample as the tile reads them, by blocks.
struct KeyBlocks {
  KeyBlocks(Arena& arena, Index blocks, Index width)
      : stride((width + 31) / 32 * 32),
        turned_floats(width * kKeyBlock),
        keys(arena.floats(blocks * kKeyBlock * stride)),
        keys_turned(arena.floats(blocks * turned_floats)),
        values_turned(arena.floats(blocks * turned_floats)) {}

  Index stride;
  Index turned_floats;
  float* keys;           // [64][stride]
  float* keys_turned;    // [D][64]
  float* values_turned;  // [D][64]
};

// One block of queries of one head.
struct QueryBlock {
  QueryBlock(Arena& arena, Index width, Index stride)
      : queries(arena.floats(kKeyBlock * stride)),
        douts(arena.floats(kKeyBlock * stride)),
        queries_turned(arena.floats(width * kKeyBlock)),
        douts_turned(arena.floats(width * kKeyBlock)) {}

  float* queries;  // [64][stride]
  float* douts;
  float* queries_turned;  // [D][64]
  float* douts_turned;
  alignas(64) float lse[kKeyBlock];
  alignas(64) float delta[kKeyBlock];
};

// The scores of one pair of blocks.
struct PairScores {
  PairScores(Arena& arena, Weights weights_meet_rows)
      : meet_rows(weights_meet_rows),
        weights(arena.floats(kKeyBlock * kScoreStride)),
        dscores(arena.floats(kKeyBlock * kScoreStride)) {}

  Weights meet_rows;
  float* weights;  // [key][kScoreStride], first the products q.k
  float* dscores;  // first dP
  BlockView view;
};

// Blocks of queries that walk over the keys together: as many as stay in a second-level cache.
inline constexpr Index kQueryBlocks = 8;

struct BackwardScratch {
  BackwardScratch(Arena& arena, Index width, Index stride, Weights weights)
      : together(std::clamp<Index>(kFloats / (4 * kKeyBlock * stride), 1, kQueryBlocks)),
        scores(arena, weights) {
    for (Index i = 0; i < together; ++i) blocks[i].emplace(arena, width, stride);
  }

  static constexpr Index kFloats = 64 * 1024;

  Index together;
  std::optional<QueryBlock> blocks[kQueryBlocks];
  PairScores scores;
};

struct Slope {
  Lanes weight, dproduct;
};

// One key, sixteen queries from `query` on.
template <Block kBlock, Rule kRule>
HWY_INLINE Slope slope_of(const QueryBlock& of, const PairScores& s, const ScoreRule& rule,
                          Index key, Index query) {
  const Index at = key * kScoreStride + query;
  const Lanes factor = splat(rule.scale);
  const Lanes place = splat(static_cast<float>(key));
  Lanes score = load(s.weights + at) * factor;
  Lanes along = factor;
  if constexpr (kRule == Rule::any) {
    if (rule.cap > 0.0F) {
      const Lanes t = tanh(score * splat(rule.inverse_cap));
      score = splat(rule.cap) * t;
      along = fnma(t, t, splat(1.0F)) * factor;
    }
    if (rule.slope != 0.0F) {
      score = fnma(splat(rule.slope), abs(load(s.view.position + query) - place), score);
    }
  }
  Lanes weight = exp(score - load(of.lse + query), kFaintestLog);
  Lanes dproduct = weight * (load(s.dscores + at) - load(of.delta + query)) * along;
  if constexpr (kBlock == Block::part) {
    const Lanes end = load(s.view.end + query);
    const Lanes first = load(s.view.first + query);
    weight = select_less(place, first, zero(), select_less(place, end, weight, zero()));
    dproduct = select_less(place, first, zero(), select_less(place, end, dproduct, zero()));
  }
  return {weight, dproduct};
}

template <Block kBlock, Rule kRule>
HWY_NOINLINE void slope_block(const QueryBlock& of, const PairScores& s, const ScoreRule& rule,
                              Index keys, Index queries) {
  for (Index key = 0; key < keys; ++key) {
    for (Index query = 0; query < queries; query += kLanes) {
      const Slope slope = slope_of<kBlock, kRule>(of, s, rule, key, query);
      store(slope.weight, s.weights + key * kScoreStride + query);
      store(slope.dproduct, s.dscores + key * kScoreStride + query);
    }
  }
}

HWY_INLINE void slope_block(const QueryBlock& of, const PairScores& s, const ScoreRule& rule,
                            Block block, Index keys, Index queries) {
  if (block == Block::whole) {
    rule.plain() ? slope_block<Block::whole, Rule::plain>(of, s, rule, keys, queries)
                 : slope_block<Block::whole, Rule::any>(of, s, rule, keys, queries);
  } else {
    rule.plain() ? slope_block<Block::part, Rule::plain>(of, s, rule, keys, queries)
                 : slope_block<Block::part, Rule::any>(of, s, rule, keys, queries);
  }
}

// What a task adds up.
struct Wanted {
  bool keys = true;     // dk and dv
  bool queries = true;  // dq
};

// One head of one sample.
struct SampleHead {
  Index first = 0;  // the sample's first row
  Index length = 0;
  Index kv_head = 0;

  Index blocks() const { return (length + kKeyBlock - 1) / kKeyBlock; }
};

struct BlockPair {
  Index head = 0;
  Index kv_head = 0;
  Index first = 0;  // the sample's first row
  Index key = 0;    // position of the block
  Index keys = 0;
  Index query = 0;
  Index queries = 0;
  Block block = Block::whole;
};

// Products of the pair's queries with keys, and of their dO with values: no further than seen.
HWY_INLINE void multiply_pair(const BlockPair& pair, const KeyBlocks& blocks, Index width,
                              const QueryBlock& of, const PairScores& s) {
  const Index offset = pair.key / kKeyBlock * blocks.turned_floats;
  for (Index query = 0; query < pair.queries; query += kTileColumns) {
    const Index keys = std::min(pair.keys, s.view.end_of(pair.block, query, kTileColumns));
    TileCall call{.depth = width,
                  .left = blocks.keys_turned + offset,
                  .right = of.queries_turned + query,
                  .right_stride = kKeyBlock,
                  .output = s.weights + query,
                  .output_stride = kScoreStride};
    run_panel<LeftKeys>(keys, call);
    call.left = blocks.values_turned + offset;
    call.right = of.douts_turned + query;
    call.output = s.dscores + query;
    run_panel<LeftKeys>(keys, call);
  }
}

// Which of the queries see each key: what the view says of keys, turned.
HWY_INLINE void see_queries(const BlockView& view, const BlockPair& pair, KeySpan* of_keys) {
  Index first = 0;
  Index end = 0;
  for (Index key = 0; key < pair.keys; ++key) {
    while (first < pair.queries && view.span[first].end <= key) ++first;
    while (end < pair.queries && view.span[end].first <= key) ++end;
    of_keys[key] = {first, std::max(first, end)};
  }
}

// dV and dK of the block of keys: of each key, over the queries that see it.
HWY_INLINE void add_key_gradients(const AttentionBackward& args, const BlockPair& pair,
                                  Index stride, const QueryBlock& of, const PairScores& s) {
  const Index width = args.shape.head_width;
  const Index row = pair.first + pair.key;
  KeySpan seen_by[kKeyBlock];
  if (pair.block == Block::part) see_queries(s.view, pair, seen_by);
  const auto add = [&](const float* scores, const float* queries, Matrix gradient) HWY_ATTR {
    const TileCall call{.depth = pair.queries,
                        .left = scores,
                        .right = queries,
                        .right_stride = stride,
                        .output = gradient.row(row) + pair.kv_head * width,
                        .output_stride = gradient.stride,
                        .start = ChainStart::output};
    if (pair.block == Block::whole) {
      run_band<LeftScoresByKey>(pair.keys, width, call);
    } else {
      add_spans<LeftScoresByKey>({seen_by, static_cast<std::size_t>(pair.keys)}, width, call);
    }
  };
  add(s.weights, of.douts, args.dv);
  add(s.dscores, of.queries, args.dk);
}

// dQ of the block of queries: of each query, over the keys that it sees.
HWY_INLINE void add_query_gradients(const AttentionBackward& args, const BlockPair& pair,
                                    const KeyBlocks& blocks, const PairScores& s) {
  const Index width = args.shape.head_width;
  const TileCall call{.depth = pair.keys,
                      .left = s.dscores,
                      .right = blocks.keys + pair.key * blocks.stride,
                      .right_stride = blocks.stride,
                      .output = args.dq.row(pair.first + pair.query) + pair.head * width,
                      .output_stride = args.dq.stride,
                      .start = ChainStart::output};
  if (pair.block == Block::whole) {
    run_band<LeftScores>(pair.queries, width, call);
  } else {
    add_spans<LeftScores>({s.view.span, static_cast<std::size_t>(pair.queries)}, width, call);
  }
}

void zero_rows(Matrix rows) {
  for (Index r = 0; r < rows.rows; ++r) std::fill(rows.row(r), rows.row(r) + rows.columns, 0.0F);
}

// The queries of the pair.
HWY_INLINE void take_queries(const AttentionBackward& args, const float* delta,
                             const BlockPair& pair, Index stride, QueryBlock& of) {
  const AttentionShape& shape = args.shape;
  const Index row = pair.first + pair.query;
  const auto band = [&](const auto& from) {
    return from.row_range(row, pair.queries)
        .column_range(pair.head * shape.head_width, shape.head_width);
  };
  pack_panel_transposed(band(args.q), kKeyBlock, of.queries_turned);
  pack_panel_transposed(band(args.dout), kKeyBlock, of.douts_turned);
  copy_rows(band(args.q), of.queries, stride);
  copy_rows(band(args.dout), of.douts, stride);
  for (Index r = 0; r < kKeyBlock; ++r) {
    const Index place = (row + std::min(r, pair.queries - 1)) * shape.heads + pair.head;
    of.lse[r] = args.lse[place];
    of.delta[r] = delta[place];
  }
}

BlockPair pair_of(const SampleHead& of, Index head, Index query) {
  return {.head = head,
          .kv_head = of.kv_head,
          .first = of.first,
          .query = query,
          .queries = std::min(kKeyBlock, of.length - query)};
}

// Blocks of keys that some of the pair's queries see: [begin, end), positions.
struct KeyRange {
  KeyRange(const AttentionShape& shape, const BlockPair& pair, Index length)
      : begin(seen_from(shape, pair.query, length).first / kKeyBlock * kKeyBlock),
        end(seen_from(shape, pair.query + pair.queries - 1, length).end) {}
  bool has(Index key) const { return key >= begin && key < end; }

  Index begin, end;
};

// The pair's part of the gradients; its queries were taken.
HWY_INLINE void add_pair(const AttentionBackward& args, BlockPair& pair, const KeyBlocks& blocks,
                         const QueryBlock& of, PairScores& s, Index length, Wanted wanted) {
  const ScoreRule rule(args.shape, pair.head);
  const QueryRange queries{pair.query, pair.queries, length};
  pair.keys = std::min(kKeyBlock, length - pair.key);
  pair.block = block_kind(args.shape, queries, pair.key);
  if (pair.block == Block::part || !rule.plain()) s.view.see(args.shape, queries, pair.key);
  multiply_pair(pair, blocks, args.shape.head_width, of, s);
  slope_block(of, s, rule, pair.block, pair.keys, pair.queries);
  if (s.meet_rows == Weights::bf16) {
    round_scores(s.weights, pair.keys, pair.queries);
    round_scores(s.dscores, pair.keys, pair.queries);
  }
  if (wanted.keys) add_key_gradients(args, pair, blocks.stride, of, s);
  if (wanted.queries) add_query_gradients(args, pair, blocks, s);
}

// Consecutive blocks of queries of one head, the first at `query`, and all keys that they see, in
// order.
void backward_queries(const AttentionBackward& args, const float* delta, const SampleHead& of,
                      Index head, Index query, Index count, const KeyBlocks& blocks,
                      BackwardScratch& s, Wanted wanted) {
  const Index width = args.shape.head_width;
  Index begin = of.length;
  Index end = 0;
  for (Index i = 0; i < count; ++i) {
    const BlockPair pair = pair_of(of, head, query + i * kKeyBlock);
    take_queries(args, delta, pair, blocks.stride, *s.blocks[i]);
    zero_rows(args.dq.row_range(pair.first + pair.query, pair.queries)
                  .column_range(pair.head * width, width));
    const KeyRange seen(args.shape, pair, of.length);
    begin = std::min(begin, seen.begin);
    end = std::max(end, seen.end);
  }
  for (Index key = begin; key < end; key += kKeyBlock) {
    for (Index i = 0; i < count; ++i) {
      BlockPair pair = pair_of(of, head, query + i * kKeyBlock);
      if (!KeyRange(args.shape, pair, of.length).has(key)) continue;
      pair.key = key;
      add_pair(args, pair, blocks, *s.blocks[i], s.scores, of.length, wanted);
    }
  }
}

// A block of keys, and all queries of all heads that see it, in order.
void backward_keys(const AttentionBackward& args, const float* delta, const SampleHead& of,
                   Index key, const KeyBlocks& blocks, BackwardScratch& s) {
  const Index group = args.shape.heads / args.shape.kv_heads;
  for (Index head = of.kv_head * group; head < (of.kv_head + 1) * group; ++head) {
    for (Index query = 0; query < of.length; query += kKeyBlock) {
      BlockPair pair = pair_of(of, head, query);
      if (!KeyRange(args.shape, pair, of.length).has(key)) continue;
      pair.key = key;
      take_queries(args, delta, pair, blocks.stride, *s.blocks[0]);
      add_pair(args, pair, blocks, *s.blocks[0], s.scores, of.length,
               {.keys = true, .queries = false});
    }
  }
}

// One block of keys and values, and zeros where its gradients will be.
void take_keys(const AttentionBackward& args, const SampleHead& of, Index key,
               const KeyBlocks& blocks) {
  const Index width = args.shape.head_width;
  const auto band = [&](const auto& from) {
    return from.row_range(of.first + key, std::min(kKeyBlock, of.length - key))
        .column_range(of.kv_head * width, width);
  };
  const Index turned = key / kKeyBlock * blocks.turned_floats;
  copy_rows(band(args.k), blocks.keys + key * blocks.stride, blocks.stride);
  pack_panel_transposed(band(args.k), kKeyBlock, blocks.keys_turned + turned);
  pack_panel_transposed(band(args.v), kKeyBlock, blocks.values_turned + turned);
  zero_rows(band(args.dk));
  zero_rows(band(args.dv));
}

void backward_head(const AttentionBackward& args, const float* delta, const SampleHead& of,
                   Weights weights, Arena& arena) {
  const Index width = args.shape.head_width;
  const Index group = args.shape.heads / args.shape.kv_heads;
  ArenaScope scope(arena);
  const KeyBlocks blocks(arena, of.blocks(), width);
  BackwardScratch scratch(arena, width, blocks.stride, weights);
  for (Index key = 0; key < of.length; key += kKeyBlock) take_keys(args, of, key, blocks);
  for (Index head = of.kv_head * group; head < (of.kv_head + 1) * group; ++head) {
    for (Index block = 0; block < of.blocks(); block += scratch.together) {
      backward_queries(args, delta, of, head, block * kKeyBlock,
                       std::min(scratch.together, of.blocks() - block), blocks, scratch, {});
    }
  }
}

void backward_by_blocks(const OpContext& ctx, const AttentionBackward& args, const float* delta,
                        const SampleHead& of) {
  const Weights weights = weights_in_use();
  const Index width = args.shape.head_width;
  const Index group = args.shape.heads / args.shape.kv_heads;
  ArenaScope scope(ctx.pool->op_scratch());
  const KeyBlocks blocks(ctx.pool->op_scratch(), of.blocks(), width);
  const auto each = [&](Index count, const auto& task) {
    ctx.pool->parallel_for(count, 1, [&](int thread, Index begin, Index end) {
      Arena& arena = ctx.pool->scratch(thread);
      ArenaScope thread_scope(arena);
      BackwardScratch scratch(arena, width, blocks.stride, weights);
      for (Index i = begin; i < end; ++i) task(i, scratch);
    });
  };
  each(of.blocks(), [&](Index i, BackwardScratch&) { take_keys(args, of, i * kKeyBlock, blocks); });
  each(of.blocks(), [&](Index i, BackwardScratch& scratch) {
    backward_keys(args, delta, of, i * kKeyBlock, blocks, scratch);
  });
  // The last queries see most keys: they begin.
  each(of.blocks() * group, [&](Index i, BackwardScratch& scratch) {
    const Index query = (of.blocks() - 1 - i / group) * kKeyBlock;
    backward_queries(args, delta, of, of.kv_head * group + i % group, query, 1, blocks, scratch,
                     {.keys = false, .queries = true});
  });
}

// Whether the longest head alone takes longer than all of them by blocks.
bool wants_blocks(const AttentionBackward& args, Index threads) {
  constexpr double kAgain = 7.0 / 5.0;
  double longest = 0.0;
  double all = 0.0;
  for (std::size_t i = 1; i < args.sample_offsets.size(); ++i) {
    const auto length = static_cast<double>(args.sample_offsets[i] - args.sample_offsets[i - 1]);
    longest = std::max(longest, length * length);
    all += length * length * static_cast<double>(args.shape.kv_heads);
  }
  return longest * static_cast<double>(threads) > kAgain * all;
}

void attention_backward_kernel(const OpContext& ctx, const AttentionBackward& args) {
  const Weights weights = weights_in_use();
  ArenaScope scope(ctx.pool->op_scratch());
  float* const delta = ctx.pool->op_scratch().floats(args.q.rows * args.shape.heads);
  attention_deltas(ctx, args, delta);
  const Index kv_heads = args.shape.kv_heads;
  const Index tasks = (static_cast<Index>(args.sample_offsets.size()) - 1) * kv_heads;
  const auto head_of = [&](Index task) {
    const auto sample = static_cast<std::size_t>(task / kv_heads);
    const Index first = args.sample_offsets[sample];
    return SampleHead{first, args.sample_offsets[sample + 1] - first, task % kv_heads};
  };
  if (wants_blocks(args, ctx.pool->threads())) {
    for (Index task = 0; task < tasks; ++task) backward_by_blocks(ctx, args, delta, head_of(task));
    return;
  }
  ctx.pool->parallel_for(tasks, 1, [&](int thread, Index begin, Index end) {
    for (Index task = begin; task < end; ++task) {
      backward_head(args, delta, head_of(task), weights, ctx.pool->scratch(thread));
    }
  });
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "kernels/tensor/op_counters.h"

#include "kernels/cpu/dispatch.h"
#include "kernels/tensor/device.h"

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
  if (!is(args.q, wide) || !is(args.out, wide) || !is(args.dout, wide) || !is(args.k, narrow) ||
      !is(args.v, narrow) || !fits_outputs(args.q, args.dq, args.dq_rounded) ||
      !fits_outputs(args.k, args.dk, args.dk_rounded) ||
      !fits_outputs(args.v, args.dv, args.dv_rounded) || !fits_operand(args.q_rounded, args.q) ||
      !fits_operand(args.k_rounded, args.k) || !fits_operand(args.v_rounded, args.v) ||
      (args.lse == nullptr && tokens > 0) || shape.cache != CacheType::f32) {
    return Error{ErrorCode::invalid_argument,
                 "attention_backward: q, k, v, out, lse or gradients do not match, or the cache "
                 "type is not f32"};
  }
  if (auto checked = check_sample_offsets("attention_backward", args.sample_offsets, tokens);
      !checked) {
    return checked;
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  if (args.q_rounded || args.k_rounded || args.v_rounded || args.dq_rounded || args.dk_rounded ||
      args.dv_rounded) {
    return rounded_on_devices_only("attention_backward");
  }
  // Weights are scaled, shifted exponentials, slopes a difference and two products; delta is a
  // row's.
  constexpr AttentionCost kCost{.pair = 6, .product = 10, .query = 2, .wide = 4, .narrow = 4};
  const OpTimer timer(Op::attention_backward, work_of(shape, args.sample_offsets, kCost));
  ArenaScope scope(ctx.pool->op_scratch());
  AttentionBackward run = args;
  if (weights_in_use() == Weights::bf16) {
    for (ConstMatrix* const x : {&run.q, &run.k, &run.v, &run.dout}) *x = rounded_in_fp32(ctx, *x);
  }
  TUTTI_CPU_CALL(attention_backward_kernel)(ctx, run);
  return {};
}

}  // namespace tutti::kernels

#endif
