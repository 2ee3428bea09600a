// The pieces that attention forward is handed out in.
#pragma once

#include <algorithm>

#include "kernels/ops/key_value_pages.h"
#include "kernels/tensor/rounding.h"

namespace tutti::kernels {

// Decoding takes up to this many lines (queries times heads that share a key head) and rows; more
// are prefill's, which takes each head's keys by itself, but 16 queries at once.
inline constexpr Index kDecodeLines = 16;
inline constexpr Index kDecodeRows = 4;

// How weights and their slopes meet rows: as they are, or rounded to bf16 (rounding.h).
enum class Weights { fp32, bf16 };

// Of the calling thread.
inline Weights weights_in_use() {
  return RoundingScope::is_to_bf16() ? Weights::bf16 : Weights::fp32;
}

// Some rows of one sequence and the heads that a task takes.
struct AttentionTask {
  enum class Kind { prefill, decode };
  Kind kind = Kind::prefill;
  Weights weights = Weights::fp32;
  const SequenceRows* sequence = nullptr;
  Index row = 0;  // of q and out
  Index rows = 0;
  Index position = 0;  // of the first row; prefill: all in one block of the grid
  Index length = 0;    // of the sequence with all rows of the call
  Index head = 0;      // prefill: query head; decoding: key head
  Index first = 0;     // decoding: of the heads that share it, those from this one on,
  Index heads = 0;     // so many
};

// Where the logarithms of sums go: of a row and head, at data[row * stride + head]; null: nowhere.
struct LogSums {
  float* data = nullptr;
  Index stride = 0;
};

// Consecutive queries of one sequence.
struct QueryRange {
  Index position = 0;
  Index rows = 0;
  Index length = 0;
};

// Keys [first, end) of a block.
struct KeySpan {
  Index first = 0;
  Index end = 0;

  bool operator==(const KeySpan&) const = default;
};

inline bool decodes(const AttentionShape& shape, Index rows) {
  return rows <= kDecodeRows && rows * (shape.heads / shape.kv_heads) <= kDecodeLines;
}

// In how many parts the heads of a key head are decoded, where `tasks` are too few for the threads.
// A head's bits do not depend on it; each part reads the keys, at about the same time. Two heads
// are what a tile takes at least.
inline Index decode_parts(const AttentionShape& shape, Index tasks, Index threads) {
  const Index group = shape.heads / shape.kv_heads;
  if (tasks == 0 || tasks >= threads) return 1;
  return std::clamp<Index>((threads + tasks - 1) / tasks, 1, std::max<Index>(1, group / 2));
}

// Tiles of prefill (64 queries of one head) that walk over their keys together: as many as stay in
// a second-level cache, queries and sums, beside keys and values.
inline constexpr Index kTilesTogether = 8;

inline Index tiles_together(const AttentionShape& shape) {
  constexpr Index kFloats = 64 * 1024;
  return std::clamp<Index>(kFloats / (2 * kKeyBlock * shape.head_width), 1, kTilesTogether);
}

// How a call is cut: the heads of a key head that are decoded in parts, tiles together otherwise.
struct Split {
  Index parts = 1;
  Index tiles = 1;
};

// Whether two tasks may be taken together.
inline bool share_keys(const AttentionShape& shape, const AttentionTask& a,
                       const AttentionTask& b) {
  const Index group = shape.heads / shape.kv_heads;
  return a.kind == AttentionTask::Kind::prefill && b.kind == a.kind && a.sequence == b.sequence &&
         a.head / group == b.head / group;
}

// Without parts, all rows are prefill's.
inline Index tasks_of(const AttentionShape& shape, const SequenceRows& rows, Index parts) {
  if (rows.rows == 0) return 0;
  if (parts > 0 && decodes(shape, rows.rows)) return shape.kv_heads * parts;
  const Index last = (rows.first_position + rows.rows - 1) / kKeyBlock;
  return (last - rows.first_position / kKeyBlock + 1) * shape.heads;
}

// use(task) for each task of one sequence: long ones first, so that threads end together; `tiles`
// of a key head follow each other.
template <class Use>
void for_tasks(const AttentionShape& shape, const SequenceRows& rows, Split split, const Use& use) {
  AttentionTask task{.sequence = &rows, .length = rows.first_position + rows.rows};
  const Index group = shape.heads / shape.kv_heads;
  if (rows.rows > 0 && split.parts > 0 && decodes(shape, rows.rows)) {
    task.kind = AttentionTask::Kind::decode;
    task.row = rows.first_row;
    task.rows = rows.rows;
    task.position = rows.first_position;
    const Index parts = split.parts;
    for (Index i = 0; i < shape.kv_heads * parts; ++i) {
      task.head = i / parts;
      task.first = i % parts * group / parts;
      task.heads = (i % parts + 1) * group / parts - task.first;
      use(task);
    }
    return;
  }
  const Index blocks = std::max<Index>(1, split.tiles / group);
  const Index begin = rows.first_position / kKeyBlock;
  const Index end = rows.rows > 0 ? (task.length - 1) / kKeyBlock + 1 : begin;
  for (Index last = end; last > begin; last -= std::min(blocks, last - begin)) {
    for (Index kv_head = 0; kv_head < shape.kv_heads; ++kv_head) {
      for (Index block = last; block > std::max(begin, last - blocks); --block) {
        task.position = std::max(rows.first_position, (block - 1) * kKeyBlock);
        task.rows = std::min(task.length, block * kKeyBlock) - task.position;
        task.row = rows.first_row + task.position - rows.first_position;
        for (Index h = 0; h < group; ++h) {
          task.head = kv_head * group + h;
          use(task);
        }
      }
    }
  }
}

}  // namespace tutti::kernels
