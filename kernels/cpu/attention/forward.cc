// Attention forward over key/value pages, for training and serving alike: hands out tasks, by 64
// queries of a head, or for a few queries by key head.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention/forward.cc"
#include <hwy/foreach_target.h>

#include "kernels/cpu/attention/decode-inl.h"
#include "kernels/cpu/attention/prefill-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

void attention_kernel(const OpContext& ctx, const AttentionCached& args, float* lse,
                      std::span<const AttentionTask> tasks) {
  ctx.pool->parallel_for(static_cast<Index>(tasks.size()), 1,
                         [&](int thread, Index begin, Index end) {
                           for (Index i = begin; i < end; ++i) {
                             const AttentionTask& task = tasks[static_cast<std::size_t>(i)];
                             Arena& arena = ctx.pool->scratch(thread);
                             if (task.kind == AttentionTask::Kind::decode) {
                               decode_task(args, lse, task, arena);
                             } else {
                               prefill_task(args, lse, task, arena);
                             }
                           }
                         });
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "kernels/tensor/op_counters.h"

#include <new>

#include "kernels/cpu/dispatch.h"
#include "kernels/tensor/device.h"

namespace tutti::kernels {

namespace {

bool decodes(const AttentionShape& shape, Index rows) {
  return rows <= kDecodeRows && rows * (shape.heads / shape.kv_heads) <= kDecodeLines;
}

Index tasks_of(const AttentionShape& shape, const SequenceRows& rows) {
  if (rows.rows == 0) return 0;
  if (decodes(shape, rows.rows)) return shape.kv_heads;
  const Index last = (rows.first_position + rows.rows - 1) / kKeyBlock;
  return (last - rows.first_position / kKeyBlock + 1) * shape.heads;
}

// Long tasks first, so that the threads end together.
void add_tasks(const AttentionShape& shape, const SequenceRows& rows, AttentionTask*& next) {
  const Index length = rows.first_position + rows.rows;
  if (decodes(shape, rows.rows)) {
    for (Index head = 0; head < shape.kv_heads; ++head) {
      new (next++) AttentionTask{AttentionTask::Kind::decode,
                                 &rows,
                                 rows.first_row,
                                 rows.rows,
                                 rows.first_position,
                                 length,
                                 head};
    }
    return;
  }
  for (Index left = rows.rows; left > 0;) {
    const Index piece = std::min((rows.first_position + left - 1) % kKeyBlock + 1, left);
    left -= piece;
    for (Index head = 0; head < shape.heads; ++head) {
      new (next++) AttentionTask{AttentionTask::Kind::prefill,
                                 &rows,
                                 rows.first_row + left,
                                 piece,
                                 rows.first_position + left,
                                 length,
                                 head};
    }
  }
}

void run_attention(const OpContext& ctx, const AttentionCached& args, float* lse) {
  Index count = 0;
  for (const SequenceRows& rows : args.sequences) count += tasks_of(args.shape, rows);
  if (count == 0) return;
  Arena& arena = ctx.pool->op_scratch();
  ArenaScope scope(arena);
  auto* const tasks = reinterpret_cast<AttentionTask*>(
      arena.take(static_cast<std::size_t>(count) * sizeof(AttentionTask)));
  AttentionTask* next = tasks;
  for (const SequenceRows& rows : args.sequences) {
    if (rows.rows > 0) add_tasks(args.shape, rows, next);
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
  run_attention(ctx, args, nullptr);
  return {};
}

Result<> attention_forward(const OpContext& ctx, const AttentionForward& args) {
  const AttentionShape& shape = args.shape;
  if (auto checked = check_attention_shape("attention_forward", shape); !checked) return checked;
  const Index kv_columns = shape.kv_heads * shape.head_width;
  if (!same_tokens(shape, args.q, args.out) || args.k.rows != args.q.rows ||
      args.v.rows != args.q.rows || args.k.columns != kv_columns || args.v.columns != kv_columns ||
      shape.cache != CacheType::f32) {
    return Error{ErrorCode::invalid_argument,
                 "attention_forward: q, k, v or out do not match, or the cache type is not f32"};
  }
  if (auto checked = check_sample_offsets("attention_forward", args.sample_offsets, args.q.rows);
      !checked) {
    return checked;
  }
  if (ctx.device != nullptr) return ctx.device->enqueue(args);
  const OpTimer timer(Op::attention_forward, work_of(shape, args.sample_offsets, 4));
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
