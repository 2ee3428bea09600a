// Where things lie in a page of the key/value cache; shared by the ops that write and read it.
//
//   page = for each key head:  keys    [head_width][kKeyBlock]     as the score product reads them
//                              values  [kKeyBlock][value_stride]   as the value sum reads them
//                              scales  [2][kKeyBlock]              int8 only: of keys, of values
//
// Keys and values are fp32, bf16 (the upper half of an fp32 number), or int8 with one fp32 scale
// for each position and head.
#pragma once

#include <cstdint>

#include "kernels/ops/key_value_pages.h"
#include "kernels/tensor/op_counters.h"

namespace tutti::kernels {

struct KeyValueLayout {
  explicit KeyValueLayout(const AttentionShape& shape)
      : value_stride((shape.head_width + 31) / 32 * 32),
        element_bytes(shape.cache == CacheType::f32 ? 4 : (shape.cache == CacheType::bf16 ? 2 : 1)),
        values_at(shape.head_width * kKeyBlock * element_bytes),
        scales_at(values_at + kKeyBlock * value_stride * element_bytes),
        head_bytes(scales_at + (shape.cache == CacheType::int8 ? 2 * kKeyBlock * 4 : 0)) {}

  template <class Element>
  Element* keys(float* page, Index kv_head) const {
    return reinterpret_cast<Element*>(head(page, kv_head));
  }
  template <class Element>
  Element* values(float* page, Index kv_head) const {
    return reinterpret_cast<Element*>(head(page, kv_head) + values_at);
  }
  float* key_scales(float* page, Index kv_head) const {
    return reinterpret_cast<float*>(head(page, kv_head) + scales_at);
  }
  float* value_scales(float* page, Index kv_head) const {
    return key_scales(page, kv_head) + kKeyBlock;
  }
  std::byte* head(float* page, Index kv_head) const {
    return reinterpret_cast<std::byte*>(page) + kv_head * head_bytes;
  }

  Index value_stride;
  Index element_bytes;
  Index values_at;  // bytes from the head's begin
  Index scales_at;
  Index head_bytes;
};

// Which keys a query sees: positions [first, end) of its sequence of `length`.
struct Seen {
  Index first = 0;
  Index end = 0;
};
inline Seen seen_from(const AttentionShape& shape, Index position, Index length) {
  if (shape.mask == AttentionMask::full) return {0, length};
  const Index first = position - shape.window + 1;
  return {shape.window > 0 && first > 0 ? first : 0, position + 1};
}

// Puts the rows of one key head at their positions: kv_write's work.
void write_key_head(const KeyValueWrite& args, const SequenceRows& rows, Index kv_head);

// Operations and arrays.
struct AttentionCost {
  Index pair;     // of a head and two tokens that see each other: the scale and the softmax
  Index product;  // of each of its columns
  Index query;    // of each column of a query
  Index wide;     // arrays of all heads that are read or written
  Index narrow;   // of all key heads
};
// Two products; a scale and a softmax.
inline constexpr AttentionCost kForwardCost{
    .pair = 5, .product = 4, .query = 0, .wide = 2, .narrow = 2};
// Of attention over whole samples.
OpWork work_of(const AttentionShape& shape, std::span<const std::int32_t> offsets,
               const AttentionCost& cost);
// Of cached keys and values, read once for each key head, and the queries' rows.
OpWork work_of(const AttentionShape& shape, std::span<const SequenceRows> sequences);

// Errors: invalid_argument.
Result<> check_attention_shape(const char* op, const AttentionShape& shape);

// Errors: invalid_argument: offsets that do not run from 0 to `tokens` in ascending order.
Result<> check_sample_offsets(const char* op, std::span<const std::int32_t> offsets, Index tokens);

}  // namespace tutti::kernels
