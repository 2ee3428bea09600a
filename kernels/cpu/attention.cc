// Attention forward over key/value pages, for training and serving alike.
//
// A task is up to 64 consecutive queries of one head that lie in one block of the position grid, so
// that every key block before the last is seen whole by all of them, and only the last has a
// triangle. Scores and value sums run on the product's register tile; where a query's keys end, its
// value sum ends.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention.cc"
#include <hwy/foreach_target.h>

#include "kernels/cpu/exp-inl.h"
#include "kernels/cpu/key_value_layout.h"
#include "kernels/cpu/product/pack.h"
#include "kernels/cpu/product/tile-inl.h"
#include "kernels/ops/key_value_pages.h"
#include "kernels/ops/math.h"

#ifndef TUTTI_ATTENTION_TASK
#define TUTTI_ATTENTION_TASK
namespace tutti::kernels {

// Some queries of one head: rows [row, row + rows) at positions [position, position + rows), all in
// one block.
struct AttentionTask {
  const SequenceRows* sequence = nullptr;
  Index row = 0;
  Index rows = 0;
  Index position = 0;
  Index head = 0;
};

}  // namespace tutti::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

// Memory of one task; scores become probabilities in place.
struct AttentionScratch {
  AttentionScratch(Arena& arena, const KeyValueLayout& layout)
      : queries(arena.floats(kKeyBlock * LeftRows::kStride)),
        scores(arena.floats(kKeyBlock * LeftRows::kStride)),
        sums(arena.floats(kKeyBlock * layout.value_stride)) {}

  float* queries;          // LeftRows
  float* scores;           // LeftRows
  float* sums;             // [queries][value_stride]: value sums, not yet divided
  float top[kKeyBlock];    // largest score seen
  float total[kKeyBlock];  // sum of exp(score - top)
};

// One row's part of the online softmax.
struct SoftmaxRow {
  float* scores;  // of this block; become exp(score - top)
  float* sums;    // value sums under `top`
  Index width;    // of sums
  float& top;
  float& total;
};

// A new maximum: what was summed under the old one shrinks.
HWY_INLINE void rescale(const SoftmaxRow& row, float block_top) {
  alignas(64) float shrink[kLanes];
  store(exp(splat(row.top - block_top)), shrink);
  row.top = block_top;
  row.total *= shrink[0];
  const Lanes by = splat(shrink[0]);
  for (Index i = 0; i < row.width; i += kLanes) {
    store(load(row.sums + i) * by, row.sums + i);
  }
}

// Takes one block of `keys` scores of a row into its running softmax: scales the scores, raises the
// maximum, rescales what was summed, leaves exp(score - maximum) in their place. A whole block is
// the same arithmetic without the masks.
enum class Block { whole, part };
template <Block kBlock>
HWY_INLINE void softmax_block(const SoftmaxRow& row, Index keys, float scale, ChainStart start) {
  static_assert(kKeyBlock == 4 * kLanes);
  float* const scores = row.scores;
  const Lanes factor = splat(scale);
  const Lanes lowest = splat(-std::numeric_limits<float>::infinity());
  const auto seen = [&](const Lanes& x, Index i, const Lanes& other) HWY_ATTR {
    return kBlock == Block::whole ? x : keep_first(x, keys - i, other);
  };
  const Lanes s0 = seen(load(scores) * factor, 0, lowest);
  const Lanes s1 = seen(load(scores + 16) * factor, 16, lowest);
  const Lanes s2 = seen(load(scores + 32) * factor, 32, lowest);
  const Lanes s3 = seen(load(scores + 48) * factor, 48, lowest);
  const float block_top = max_lanes(max(max(s0, s1), max(s2, s3)));
  if (start == ChainStart::zero) {
    row.top = block_top;
    row.total = 0.0F;
  } else if (block_top > row.top) {
    rescale(row, block_top);
  }
  // Unseen scores are minus infinity here, and their weights exactly zero.
  const Lanes offset = splat(row.top);
  const Lanes w0 = exp(s0 - offset);
  const Lanes w1 = exp(s1 - offset);
  const Lanes w2 = exp(s2 - offset);
  const Lanes w3 = exp(s3 - offset);
  store(w0, scores);
  store(w1, scores + 16);
  store(w2, scores + 32);
  store(w3, scores + 48);
  row.total += sum_lanes((w0 + w1) + (w2 + w3));
}

// The value sum of the last block: row r sees `keys` + r keys. Four rows share what all of them
// see. `call` is that of the first row, its depth not set.
HWY_INLINE void add_triangle(Index rows, Index keys, Index width, TileCall call) {
  for (Index row = 0; row < rows; row += 4) {
    const Index height = std::min<Index>(4, rows - row);
    call.depth = keys + row;
    run_band<LeftRows>(height, width, call);
    for (Index r = 1; r < height; ++r) {
      TileCall rest = call;
      rest.depth = r;
      rest.left += LeftRows::at(r, call.depth);
      rest.right += call.depth * call.right_stride;
      rest.output += r * call.output_stride;
      rest.start = ChainStart::output;
      run_band<LeftRows>(1, width, rest);
    }
    call.left += LeftRows::at(4, 0);
    call.output += 4 * call.output_stride;
  }
}

HWY_INLINE void finish_rows(const AttentionCached& args, float* lse, const AttentionTask& task,
                            const AttentionScratch& scratch, Index stride) {
  const Index width = args.shape.head_width;
  for (Index r = 0; r < task.rows; ++r) {
    const Lanes by = splat(1.0F / scratch.total[r]);
    const float* const sums = scratch.sums + r * stride;
    float* const out = args.out.row(task.row + r) + task.head * width;
    for_lanes(
        width, [&](Index i) { store(load(sums + i) * by, out + i); },
        [&](Index i, Index left) { store_first(load(sums + i) * by, out + i, left); });
    if (lse != nullptr) {
      lse[(task.row + r) * args.shape.heads + task.head] =
          scratch.top[r] + static_cast<float>(kernels::log(static_cast<double>(scratch.total[r])));
    }
  }
}

HWY_INLINE void prefetch_block(const KeyValueLayout& layout, const float* page, Index kv_head) {
  constexpr Index kLine = 16;
  const float* const first = page + kv_head * layout.head_floats;
  for (Index i = 0; i < layout.head_floats; i += kLine) __builtin_prefetch(first + i, 0, 2);
}

void attention_task(const AttentionCached& args, float* lse, const AttentionTask& task,
                    Arena& arena) {
  const AttentionShape& shape = args.shape;
  const KeyValueLayout layout(shape);
  ArenaScope scope(arena);
  AttentionScratch scratch(arena, layout);
  const Index width = shape.head_width;
  const Index stride = layout.value_stride;
  copy_rows(args.q.row_range(task.row, task.rows).column_range(task.head * width, width),
            scratch.queries, LeftRows::kStride);
  const Index kv_head = task.head / (shape.heads / shape.kv_heads);
  const Index last = task.position / kKeyBlock;
  const Index keys_of_first = task.position % kKeyBlock + 1;  // of the first row, in the last block
  for (Index block = 0; block <= last; ++block) {
    float* const page = task.sequence->pages[static_cast<std::size_t>(block)];
    const ChainStart start = block == 0 ? ChainStart::zero : ChainStart::output;
    const bool whole = block < last;
    const auto next = static_cast<std::size_t>(block + 1);
    const Index columns =
        whole ? kKeyBlock
              : std::min(kKeyBlock, (keys_of_first + task.rows - 1 + kTileColumns - 1) /
                                        kTileColumns * kTileColumns);
    const TileCall score{.depth = width,
                         .left = scratch.queries,
                         .right = layout.keys(page, kv_head),
                         .right_stride = kKeyBlock,
                         .output = scratch.scores,
                         .output_stride = LeftRows::kStride};
    if (task.rows == 1) {
      // Decoding reads memory: a block's keys from end to end, while the next block is on its way.
      if (whole) prefetch_block(layout, task.sequence->pages[next], kv_head);
      run_tile<LeftRows, 1, kKeyBlock / kVectorLanes>(score);
    } else {
      run_band<LeftRows>(task.rows, columns, score);
    }
    for (Index r = 0; r < task.rows; ++r) {
      const SoftmaxRow row{scratch.scores + LeftRows::at(r, 0), scratch.sums + r * stride, stride,
                           scratch.top[r], scratch.total[r]};
      if (whole) {
        softmax_block<Block::whole>(row, kKeyBlock, shape.scale, start);
      } else {
        softmax_block<Block::part>(row, keys_of_first + r, shape.scale, start);
      }
    }
    const TileCall sum{.depth = kKeyBlock,
                       .left = scratch.scores,
                       .right = layout.values(page, kv_head),
                       .right_stride = stride,
                       .output = scratch.sums,
                       .output_stride = stride,
                       .start = start};
    if (whole) {
      run_band<LeftRows>(task.rows, stride, sum);
    } else {
      add_triangle(task.rows, keys_of_first, stride, sum);
    }
  }
  finish_rows(args, lse, task, scratch, stride);
}

void attention_kernel(const OpContext& ctx, const AttentionCached& args, float* lse,
                      std::span<const AttentionTask> tasks) {
  ctx.pool->parallel_for(
      static_cast<Index>(tasks.size()), 1, [&](int thread, Index begin, Index end) {
        for (Index i = begin; i < end; ++i) {
          attention_task(args, lse, tasks[static_cast<std::size_t>(i)], ctx.pool->scratch(thread));
        }
      });
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <new>

#include "kernels/cpu/dispatch.h"

namespace tutti::kernels {

namespace {

Index blocks_touched(const SequenceRows& rows) {
  if (rows.rows == 0) return 0;
  return (rows.first_position + rows.rows - 1) / kKeyBlock - rows.first_position / kKeyBlock + 1;
}

void run_attention(const OpContext& ctx, const AttentionCached& args, float* lse) {
  Index count = 0;
  for (const SequenceRows& rows : args.sequences) count += blocks_touched(rows) * args.shape.heads;
  if (count == 0) return;
  Arena& arena = ctx.pool->op_scratch();
  ArenaScope scope(arena);
  auto* const tasks = reinterpret_cast<AttentionTask*>(
      arena.take(static_cast<std::size_t>(count) * sizeof(AttentionTask)));
  Index next = 0;
  for (const SequenceRows& rows : args.sequences) {
    for (Index done = 0; done < rows.rows;) {
      const Index position = rows.first_position + done;
      const Index piece = std::min(kKeyBlock - position % kKeyBlock, rows.rows - done);
      for (Index head = 0; head < args.shape.heads; ++head) {
        new (tasks + next++) AttentionTask{&rows, rows.first_row + done, piece, position, head};
      }
      done += piece;
    }
  }
  TUTTI_CPU_CALL(attention_kernel)
  (ctx, args, lse, std::span<const AttentionTask>(tasks, static_cast<std::size_t>(count)));
}

bool same_tokens(const AttentionShape& shape, const ConstMatrix& q, const ConstMatrix& out) {
  return q.columns == shape.heads * shape.head_width && out.columns == q.columns &&
         out.rows == q.rows;
}

}  // namespace

Result<> attention_cached(const OpContext& ctx, const AttentionCached& args) {
  if (auto checked = check_attention_shape("attention_cached", args.shape); !checked) {
    return checked;
  }
  if (!same_tokens(args.shape, args.q, args.out)) {
    return Error{ErrorCode::invalid_argument,
                 "attention_cached: q and out must be [tokens, heads * head_width]"};
  }
  for (const SequenceRows& rows : args.sequences) {
    if (rows.first_row < 0 || rows.rows < 0 || rows.first_row + rows.rows > args.q.rows ||
        rows.first_position < 0 ||
        static_cast<Index>(rows.pages.size()) < kv_pages_for(rows.first_position + rows.rows)) {
      return Error{ErrorCode::invalid_argument,
                   "attention_cached: a sequence's rows are not in the batch, or it has too few "
                   "pages"};
    }
  }
  run_attention(ctx, args, nullptr);
  return {};
}

Result<> attention_forward(const OpContext& ctx, const AttentionForward& args) {
  const AttentionShape& shape = args.shape;
  if (auto checked = check_attention_shape("attention_forward", shape); !checked) return checked;
  const Index kv_columns = shape.kv_heads * shape.head_width;
  if (!same_tokens(shape, args.q, args.out) || args.k.rows != args.q.rows ||
      args.v.rows != args.q.rows || args.k.columns != kv_columns || args.v.columns != kv_columns) {
    return Error{ErrorCode::invalid_argument, "attention_forward: q, k, v or out do not match"};
  }
  if (auto checked = check_sample_offsets("attention_forward", args.sample_offsets, args.q.rows);
      !checked) {
    return checked;
  }
  // The batch's keys and values become pages in scratch memory: one arithmetic for training and
  // serving.
  Arena& arena = ctx.pool->op_scratch();
  ArenaScope scope(arena);
  const std::size_t samples = args.sample_offsets.size() - 1;
  auto* const sequences =
      reinterpret_cast<SequenceRows*>(arena.take(samples * sizeof(SequenceRows)));
  for (std::size_t s = 0; s < samples; ++s) {
    const Index first = args.sample_offsets[s];
    const Index rows = args.sample_offsets[s + 1] - first;
    const Index pages = kv_pages_for(rows);
    auto* const list =
        reinterpret_cast<float**>(arena.take(static_cast<std::size_t>(pages) * sizeof(float*)));
    for (Index p = 0; p < pages; ++p) list[p] = arena.floats(kv_page_floats(shape));
    new (sequences + s) SequenceRows{
        first, rows, 0, std::span<float* const>(list, static_cast<std::size_t>(pages))};
  }
  const std::span<const SequenceRows> all(sequences, samples);
  if (auto written = kv_write(ctx, {shape, args.k, args.v, all}); !written) return written;
  run_attention(ctx, {shape, args.q, all, args.out}, args.lse);
  return {};
}

}  // namespace tutti::kernels

#endif
