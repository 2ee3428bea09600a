// Where things lie in a page of the key/value cache; shared by the ops that write and read it.
//
//   page = for each key head:  keys    [head_width][kKeyBlock]     as the score product reads them
//                              values  [kKeyBlock][value_stride]   as the value sum reads them
#pragma once

#include "kernels/ops/key_value_pages.h"

namespace tutti::kernels {

struct KeyValueLayout {
  explicit KeyValueLayout(const AttentionShape& shape)
      : value_stride((shape.head_width + 31) / 32 * 32),
        keys_floats(shape.head_width * kKeyBlock),
        head_floats(keys_floats + kKeyBlock * value_stride) {}

  float* keys(float* page, Index kv_head) const { return page + kv_head * head_floats; }
  float* values(float* page, Index kv_head) const { return keys(page, kv_head) + keys_floats; }

  Index value_stride;
  Index keys_floats;
  Index head_floats;
};

// Errors: invalid_argument.
Result<> check_attention_shape(const char* op, const AttentionShape& shape);

// Errors: invalid_argument: offsets that do not run from 0 to `tokens` in ascending order.
Result<> check_sample_offsets(const char* op, std::span<const std::int32_t> offsets, Index tokens);

}  // namespace tutti::kernels
