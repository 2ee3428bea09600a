// The key/value cache: opaque pages of kKeyBlock positions, touched by two ops, write and attend.
//
// A page holds the keys and values of positions [64 p, 64 p + 64) of one sequence in one layer, all
// key heads, in the layout that attention wants. A sequence is a list of page addresses, so pages
// can be shared (a common prefix), kept in any pool, or cut from one buffer. A cache without paging
// is one buffer:
//
//   FloatBuffer memory(layers * pages * kv_page_floats(shape));
//
// Bits: attention_cached over positions 0..n-1 written in any number of pieces equals
// attention_forward over a sample of n tokens, row by row.
//
// shape.cache says what a page holds: fp32, bf16 (rounded to nearest, ties to even), or int8 with
// one scale for each position and head, that of the largest magnitude. The arithmetic is in fp32
// all the same: an int8 key's score is its chain over integers times its scale, an int8 value's
// weight is multiplied by its scale; so prefill, chunks and decoding agree in each type, and in
// none with another.
//
// Ownership: the caller's. Contents of positions not yet written are never used; pages need no
// clearing. Errors: invalid_argument; nothing is written then.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/ops/attention.h"

namespace tutti::kernels {

// Size of one page in floats, whatever it holds: for each key head, kKeyBlock keys and values, a
// value's width rounded up to a multiple of 32. A page is 64-byte aligned.
Index kv_page_floats(const AttentionShape& shape);

inline Index kv_pages_for(Index positions) { return (positions + kKeyBlock - 1) / kKeyBlock; }

// Some token rows of the batch that belong to one sequence, one layer.
struct SequenceRows {
  Index first_row = 0;            // in q, k, v, out
  Index rows = 0;                 // these tokens are positions first_position ..
  Index first_position = 0;       // how many positions the cache held before
  std::span<float* const> pages;  // at least kv_pages_for(first_position + rows)
};

// Puts the rows of k and v at their positions. Sequences in one call share no page that is written.
struct KeyValueWrite {
  AttentionShape shape;
  ConstMatrix k;  // [tokens, kv_heads * head_width], rotary already applied
  ConstMatrix v;
  std::span<const SequenceRows> sequences;
};
Result<> kv_write(const OpContext& ctx, const KeyValueWrite& args);

// The shape's mask is causal. With a window, pages that no row sees any more may be null.
// Each row attends to positions 0 .. its own, all of which are in the pages (its own k and v too:
// write first).
struct AttentionCached {
  AttentionShape shape;
  ConstMatrix q;
  std::span<const SequenceRows> sequences;
  Matrix out;
  // How many positions a sequence may have, and pages all of them together: a device then does the
  // same work for calls with as many rows, however long the sequences are (step_graphs.h). Zeros:
  // no more than these have. Changes no bit.
  struct Most {
    Index positions = 0;
    Index pages = 0;
  } most = {};
};
Result<> attention_cached(const OpContext& ctx, const AttentionCached& args);

}  // namespace tutti::kernels
