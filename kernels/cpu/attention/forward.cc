// Attention forward over key/value pages, for training and serving alike: hands out tasks, by 64
// queries of a head, or for a few queries by key head.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention/forward.cc"
#include <hwy/foreach_target.h>

#include <new>

#include "kernels/cpu/attention/decode-inl.h"
#include "kernels/cpu/attention/prefill-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

// One after the other, but those that share keys together, at most `tiles`.
void run_tasks(const AttentionCached& args, const LogSums& lse,
               std::span<const AttentionTask> tasks, Index tiles, Arena& arena) {
  while (!tasks.empty()) {
    if (tasks[0].kind == AttentionTask::Kind::decode) {
      decode_task(args, lse, tasks[0], arena);
      tasks = tasks.subspan(1);
      continue;
    }
    std::size_t count = 1;
    while (count < std::min(tasks.size(), static_cast<std::size_t>(tiles)) &&
           share_keys(args.shape, tasks[0], tasks[count])) {
      ++count;
    }
    prefill_tasks(args, lse, tasks.first(count), arena);
    tasks = tasks.subspan(count);
  }
}

void attention_kernel(const OpContext& ctx, const AttentionCached& args, const LogSums& lse,
                      std::span<const AttentionTask> tasks, Index tiles) {
  ctx.pool->parallel_for(
      static_cast<Index>(tasks.size()), tiles, [&](int thread, Index begin, Index end) {
        run_tasks(
            args, lse,
            tasks.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)),
            tiles, ctx.pool->scratch(thread));
      });
}

// One sample and key head, from its own pages in the thread's memory: they stay in its L2.
void attention_head(const AttentionForward& args, Index sample, Index kv_head, Weights weights,
                    Arena& arena) {
  const Index group = args.shape.heads / args.shape.kv_heads;
  const Index width = args.shape.head_width;
  const auto at = static_cast<std::size_t>(sample);
  const Index first = args.sample_offsets[at];
  const Index rows = args.sample_offsets[at + 1] - first;
  if (rows == 0) return;
  AttentionShape shape = args.shape;
  shape.heads = group;
  shape.kv_heads = 1;
  if (shape.slopes != nullptr) shape.slopes += kv_head * group;
  ArenaScope scope(arena);
  const Index pages = kv_pages_for(rows);
  auto* const list =
      reinterpret_cast<float**>(arena.take(static_cast<std::size_t>(pages) * sizeof(float*)));
  for (Index p = 0; p < pages; ++p) list[p] = arena.floats(kv_page_floats(shape));
  const SequenceRows sequence{first, rows, 0,
                              std::span<float* const>(list, static_cast<std::size_t>(pages))};
  const auto band = [&](const auto& matrix, Index heads) {
    return matrix.column_range(kv_head * heads * width, heads * width);
  };
  write_key_head({shape, band(args.k, 1), band(args.v, 1), {}}, sequence, 0);
  const AttentionCached run{shape, band(args.q, group), {}, band(args.out, group)};
  const LogSums lse{args.lse == nullptr ? nullptr : args.lse + kv_head * group, args.shape.heads};
  const Index tiles = tiles_together(shape);
  const Index parts = weights == Weights::bf16 ? 0 : 1;
  const Index count = tasks_of(shape, sequence, parts);
  auto* const tasks = reinterpret_cast<AttentionTask*>(
      arena.take(static_cast<std::size_t>(count) * sizeof(AttentionTask)));
  AttentionTask* next = tasks;
  for_tasks(shape, sequence, {parts, tiles}, [&](AttentionTask task) {
    task.weights = weights;
    new (next++) AttentionTask(task);
  });
  run_tasks(run, lse, {tasks, static_cast<std::size_t>(count)}, tiles, arena);
}

void attention_heads_kernel(const OpContext& ctx, const AttentionForward& args, Weights weights) {
  const Index heads = args.shape.kv_heads;
  const auto samples = static_cast<Index>(args.sample_offsets.size()) - 1;
  ctx.pool->parallel_for(samples * heads, 1, [&](int thread, Index begin, Index end) {
    for (Index task = begin; task < end; ++task) {
      attention_head(args, task / heads, task % heads, weights, ctx.pool->scratch(thread));
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

namespace {

void run_attention(const OpContext& ctx, const AttentionCached& args, float* lse, Weights weights) {
  const auto tasks_in = [&](Index parts) {
    Index count = 0;
    for (const SequenceRows& rows : args.sequences) count += tasks_of(args.shape, rows, parts);
    return count;
  };
  const Index threads = ctx.pool->threads();
  const Index least = tasks_in(1);
  const Index parts = weights == Weights::bf16 ? 0 : decode_parts(args.shape, least, threads);
  const Index count = tasks_in(parts);
  if (count == 0) return;
  // Few enough together that each thread has some chunks.
  const Index tiles = std::clamp<Index>(least / (4 * threads), 1, tiles_together(args.shape));
  Arena& arena = ctx.pool->op_scratch();
  ArenaScope scope(arena);
  auto* const tasks = reinterpret_cast<AttentionTask*>(
      arena.take(static_cast<std::size_t>(count) * sizeof(AttentionTask)));
  AttentionTask* next = tasks;
  for (const SequenceRows& rows : args.sequences) {
    for_tasks(args.shape, rows, {parts, tiles}, [&](AttentionTask task) {
      task.weights = weights;
      new (next++) AttentionTask(task);
    });
  }
  TUTTI_CPU_CALL(attention_kernel)
  (ctx, args, LogSums{lse, args.shape.heads},
   std::span<const AttentionTask>(tasks, static_cast<std::size_t>(count)), tiles);
}

// The batch's keys and values become pages in scratch memory: one arithmetic for training and
// serving. Each thread makes its own, where there are enough pairs of sample and key head.
Result<> run_batch(const OpContext& ctx, const AttentionForward& args, Weights weights) {
  const AttentionShape& shape = args.shape;
  const auto pairs = static_cast<Index>(args.sample_offsets.size() - 1) * shape.kv_heads;
  if (ctx.pool->threads() == 1 || pairs >= 4 * ctx.pool->threads()) {
    TUTTI_CPU_CALL(attention_heads_kernel)(ctx, args, weights);
    return {};
  }
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
  run_attention(ctx, {shape, args.q, all, args.out}, args.lse, weights);
  return {};
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
  if (args.shape.mask != AttentionMask::causal || !same_tokens(args.shape, args.q, args.out)) {
    return Error{ErrorCode::invalid_argument,
                 "attention_cached: q and out must be [tokens, heads * head_width], the mask "
                 "causal"};
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
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  const OpTimer timer(Op::attention_cached, work_of(args.shape, args.sequences));
  run_attention(ctx, args, nullptr, Weights::fp32);
  return {};
}

Result<> attention_forward(const OpContext& ctx, const AttentionForward& args) {
  const AttentionShape& shape = args.shape;
  if (auto checked = check_attention_shape("attention_forward", shape); !checked) return checked;
  const Index kv_columns = shape.kv_heads * shape.head_width;
  if (!same_tokens(shape, args.q, args.q) || args.k.rows != args.q.rows ||
      args.v.rows != args.q.rows || args.k.columns != kv_columns || args.v.columns != kv_columns ||
      !fits_outputs(args.q, args.out, args.out_rounded) || !fits_operand(args.q_rounded, args.q) ||
      !fits_operand(args.k_rounded, args.k) || !fits_operand(args.v_rounded, args.v) ||
      shape.cache != CacheType::f32) {
    return Error{ErrorCode::invalid_argument,
                 "attention_forward: q, k, v or out do not match, or the cache type is not f32"};
  }
  if (auto checked = check_sample_offsets("attention_forward", args.sample_offsets, args.q.rows);
      !checked) {
    return checked;
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  if (args.q_rounded || args.k_rounded || args.v_rounded || args.out_rounded) {
    return rounded_on_devices_only("attention_forward");
  }
  const OpTimer timer(Op::attention_forward, work_of(shape, args.sample_offsets, kForwardCost));
  ArenaScope scope(ctx.pool->op_scratch());
  AttentionForward run = args;
  const Weights weights = weights_in_use();
  if (weights == Weights::bf16) {
    for (ConstMatrix* const x : {&run.q, &run.k, &run.v}) *x = rounded_in_fp32(ctx, *x);
  }
  return run_batch(ctx, run, weights);
}

}  // namespace tutti::kernels

#endif
