// The pieces that attention forward is handed out in.
#pragma once

#include "kernels/ops/key_value_pages.h"

namespace tutti::kernels {

// Decoding takes up to this many lines (queries times heads that share a key head) and rows; more
// are prefill's, which takes each head's keys by itself, but 16 queries at once.
inline constexpr Index kDecodeLines = 16;
inline constexpr Index kDecodeRows = 4;

// Some rows of one sequence and the heads that a task takes.
struct AttentionTask {
  enum class Kind { prefill, decode };
  Kind kind = Kind::prefill;
  const SequenceRows* sequence = nullptr;
  Index row = 0;  // of q and out
  Index rows = 0;
  Index position = 0;  // of the first row; prefill: all in one block of the grid
  Index length = 0;    // of the sequence with all rows of the call
  Index head = 0;      // prefill: query head; decoding: key head
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

}  // namespace tutti::kernels
