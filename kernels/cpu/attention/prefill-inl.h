// Attention of up to 64 consecutive queries of one head, which lie in one block of the position
// grid: a tile. Some tiles that share a key head walk over its blocks together, so that keys and
// values come from a far cache once for all of them.
//
//   S^T [key][query] = K Q^T      the tile's left operand is the page's keys, key by key
//   softmax over keys             softmax-inl.h: queries in lanes
//   O   [query][D]  += S V        the left operand is S^T as it lies
//
// No operand is turned but the queries, once. Where a query's keys end its value sum ends, and keys
// that it may not see are not touched.
#if defined(TUTTI_ATTENTION_PREFILL_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TUTTI_ATTENTION_PREFILL_INL
#undef TUTTI_ATTENTION_PREFILL_INL
#else
#define TUTTI_ATTENTION_PREFILL_INL
#endif

#include <optional>
#include <span>

#include "kernels/cpu/attention/block_view-inl.h"
#include "kernels/cpu/attention/log-inl.h"
#include "kernels/cpu/attention/softmax-inl.h"
#include "kernels/cpu/attention/triangle-inl.h"
#include "kernels/cpu/product/pack.h"
#include "kernels/cpu/product/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

// One tile, and its state between two blocks of keys.
struct PrefillTile {
  PrefillTile(Arena& arena, const AttentionShape& shape, Index stride, const AttentionTask& of)
      : task(of),
        queries(arena.floats(shape.head_width * kKeyBlock)),
        sums(arena.floats(kKeyBlock * stride)),
        begin(seen_from(shape, of.position, of.length).first / kKeyBlock * kKeyBlock),
        end(seen_from(shape, of.position + of.rows - 1, of.length).end) {
    std::fill(top, top + kKeyBlock, -std::numeric_limits<float>::infinity());
    std::fill(total, total + kKeyBlock, 0.0F);
    std::fill(sums, sums + of.rows * stride, 0.0F);
  }

  const AttentionTask& task;
  float* queries;  // [D][64]
  float* sums;     // [query][value_stride]: value sums, not yet divided
  Index begin;     // keys that some of the queries see: from the block's first
  Index end;
  alignas(64) float top[kKeyBlock];
  alignas(64) float total[kKeyBlock];
};

// Memory of one tile and block.
struct PrefillScratch {
  PrefillScratch(Arena& arena, const AttentionShape& shape, const KeyValueLayout& layout)
      : scores(arena.floats(kKeyBlock * kScoreStride)) {
    if (shape.cache != CacheType::f32) {
      wide_keys = arena.floats(shape.head_width * kKeyBlock);
      wide_values = arena.floats(kKeyBlock * layout.value_stride);
    }
  }

  float* scores;  // [key][kScoreStride]
  float* wide_keys = nullptr;
  float* wide_values = nullptr;
  alignas(64) float shrink[kKeyBlock];
  BlockView view;
};

// One block's keys and values as fp32, and the scales of int8.
struct WideBlock {
  const float* keys = nullptr;
  const float* values = nullptr;
  const float* key_scales = nullptr;
  const float* value_scales = nullptr;
};

template <class Element>
HWY_INLINE void widen_all(const Element* from, Index count, float* to) {
  for (Index i = 0; i < count; i += kVectorLanes) hn::StoreU(widen(from + i), kTag, to + i);
}

template <class Element>
HWY_INLINE WideBlock widen_block(const KeyValueLayout& layout, float* page, Index kv_head,
                                 Index width, const PrefillScratch& scratch) {
  widen_all(layout.keys<Element>(page, kv_head), width * kKeyBlock, scratch.wide_keys);
  widen_all(layout.values<Element>(page, kv_head), kKeyBlock * layout.value_stride,
            scratch.wide_values);
  return {scratch.wide_keys, scratch.wide_values};
}

HWY_INLINE WideBlock block_of(const AttentionShape& shape, const KeyValueLayout& layout,
                              float* page, Index kv_head, const PrefillScratch& scratch) {
  switch (shape.cache) {
    case CacheType::f32: break;
    case CacheType::bf16:
      return widen_block<std::uint16_t>(layout, page, kv_head, shape.head_width, scratch);
    case CacheType::int8: {
      WideBlock block = widen_block<std::int8_t>(layout, page, kv_head, shape.head_width, scratch);
      block.key_scales = layout.key_scales(page, kv_head);
      block.value_scales = layout.value_scales(page, kv_head);
      return block;
    }
  }
  return {layout.keys<float>(page, kv_head), layout.values<float>(page, kv_head)};
}

// Scores of all queries, by panels: no further than a panel sees.
HWY_INLINE void score_block(const PrefillTile& tile, const WideBlock& wide, Block block,
                            Index width, const PrefillScratch& scratch) {
  for (Index query = 0; query < tile.task.rows; query += kTileColumns) {
    run_panel<LeftKeys>(scratch.view.end_of(block, query, kTileColumns),
                        {.depth = width,
                         .left = wide.keys,
                         .right = tile.queries + query,
                         .right_stride = kKeyBlock,
                         .output = scratch.scores + query,
                         .output_stride = kScoreStride});
  }
}

HWY_INLINE void soften_block(PrefillTile& tile, const WideBlock& wide, const ScoreRule& rule,
                             Block block, PrefillScratch& scratch) {
  for (Index query = 0; query < tile.task.rows; query += kLanes) {
    const QueryGroup group{.scores = scratch.scores + query,
                           .top = tile.top + query,
                           .total = tile.total + query,
                           .shrink = scratch.shrink + query,
                           .position = scratch.view.position + query,
                           .first = scratch.view.first + query,
                           .end = scratch.view.end + query,
                           .keys = scratch.view.end_of(block, query, kLanes),
                           .key_scales = wide.key_scales,
                           .value_scales = wide.value_scales};
    softmax_group(group, rule, block);
  }
}

// One block of keys, from position `start` on.
HWY_INLINE void add_block(const AttentionShape& shape, const WideBlock& wide, Index start,
                          Index stride, PrefillTile& tile, PrefillScratch& scratch) {
  const AttentionTask& task = tile.task;
  const ScoreRule rule(shape, task.head);
  const QueryRange queries{task.position, task.rows, task.length};
  const Block block = block_kind(shape, queries, start);
  if (block == Block::part || !rule.plain()) scratch.view.see(shape, queries, start);
  score_block(tile, wide, block, shape.head_width, scratch);
  soften_block(tile, wide, rule, block, scratch);
  if (task.weights == Weights::bf16) round_scores(scratch.scores, kKeyBlock, task.rows);
  for (Index r = 0; r < task.rows; ++r) {
    if (scratch.shrink[r] != 1.0F) scale_sums(tile.sums + r * stride, stride, scratch.shrink[r]);
  }
  const TileCall sum{.depth = kKeyBlock,
                     .left = scratch.scores,
                     .right = wide.values,
                     .right_stride = stride,
                     .output = tile.sums,
                     .output_stride = stride,
                     .start = ChainStart::output};
  if (block == Block::whole) {
    run_band<LeftScores>(task.rows, stride, sum);
  } else {
    add_spans<LeftScores>({scratch.view.span, static_cast<std::size_t>(task.rows)}, stride, sum);
  }
}

HWY_INLINE void finish_tile(const AttentionCached& args, const LogSums& lse, Index stride,
                            const PrefillTile& tile) {
  const AttentionTask& task = tile.task;
  const Index width = args.shape.head_width;
  alignas(64) float logs[kKeyBlock];
  if (lse.data != nullptr) log_all(tile.total, logs, kKeyBlock);
  for (Index r = 0; r < task.rows; ++r) {
    finish_head(tile.sums + r * stride, tile.total[r], width,
                args.out.row(task.row + r) + task.head * width);
    if (lse.data != nullptr) {
      lse.data[(task.row + r) * lse.stride + task.head] = tile.top[r] + logs[r];
    }
  }
}

// Tiles of one sequence and key head, at most kTilesTogether.
void prefill_tasks(const AttentionCached& args, const LogSums& lse,
                   std::span<const AttentionTask> tasks, Arena& arena) {
  const AttentionShape& shape = args.shape;
  const KeyValueLayout layout(shape);
  const Index width = shape.head_width;
  ArenaScope scope(arena);
  PrefillScratch scratch(arena, shape, layout);
  std::optional<PrefillTile> tiles[kTilesTogether];
  const auto count = tasks.size();
  Index begin = tasks[0].length;
  Index end = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const AttentionTask& task = tasks[i];
    PrefillTile& tile = tiles[i].emplace(arena, shape, layout.value_stride, task);
    pack_panel_transposed(
        args.q.row_range(task.row, task.rows).column_range(task.head * width, width), kKeyBlock,
        tile.queries);
    begin = std::min(begin, tile.begin);
    end = std::max(end, tile.end);
  }
  const Index kv_head = tasks[0].head / (shape.heads / shape.kv_heads);
  for (Index start = begin; start < end; start += kKeyBlock) {
    float* const page = tasks[0].sequence->pages[static_cast<std::size_t>(start / kKeyBlock)];
    const WideBlock wide = block_of(shape, layout, page, kv_head, scratch);
    for (std::size_t i = 0; i < count; ++i) {
      if (start < tiles[i]->begin || start >= tiles[i]->end) continue;
      add_block(shape, wide, start, layout.value_stride, *tiles[i], scratch);
    }
  }
  for (std::size_t i = 0; i < count; ++i) finish_tile(args, lse, layout.value_stride, *tiles[i]);
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
