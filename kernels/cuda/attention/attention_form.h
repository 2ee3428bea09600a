// The forms of attention that the fp32 kernels share, forward and backward: which keys a query
// sees, how a product of a query with a key becomes a score, and where a page keeps its keys.
//
// The arithmetic of a score is that of kernels/cpu/attention/score-inl.h.
#pragma once

#include <type_traits>

#include "kernels/cuda/elementwise/functions.h"
#include "kernels/ops/attention.h"

namespace tutti::kernels::cuda {

// Which keys the query at a position sees: [first, end) of its sequence.
struct Sight {
  explicit Sight(const AttentionShape& shape)
      : window(shape.window), full(shape.mask == AttentionMask::full) {}

  __device__ __forceinline__ Index first(Index position) const {
    const Index first = position + 1 - window;
    return window > 0 && first > 0 ? first : 0;
  }
  __device__ __forceinline__ Index end(Index position, Index length) const {
    return full ? length : position + 1;
  }
  // Of the queries that see a key: [first_query, end_query) of the sequence.
  __device__ __forceinline__ Index first_query(Index key) const { return full ? 0 : key; }
  __device__ __forceinline__ Index end_query(Index key, Index length) const {
    return window > 0 && key + window < length ? key + window : length;
  }

  Index window;  // 0: none
  bool full;
};

// From a product to a score: s = scale * product; s = cap * tanh(s / cap); s -= slope * distance.
struct ScoreRule {
  explicit ScoreRule(const AttentionShape& shape)
      : scale(shape.scale),
        cap(shape.soft_cap),
        inverse_cap(shape.soft_cap > 0.0F ? 1.0F / shape.soft_cap : 0.0F),
        slopes(shape.slopes) {}

  __device__ __forceinline__ float slope(Index head) const {
    return slopes == nullptr ? 0.0F : slopes[head];
  }

  float scale, cap, inverse_cap;
  const float* slopes;  // null: none
};

struct Score {
  float value;
  float along;  // by how much it grows with the product
};
// `distance`: query minus key.
__device__ __forceinline__ Score scored(const ScoreRule& rule, float slope, float product,
                                        Index distance) {
  Score score{product * rule.scale, rule.scale};
  if (rule.cap > 0.0F) {
    const float t = tanh32(score.value * rule.inverse_cap);
    score = {rule.cap * t, fmaf(-t, t, 1.0F) * rule.scale};
  }
  if (slope != 0.0F) {
    score.value =
        fmaf(-slope, static_cast<float>(distance < 0 ? -distance : distance), score.value);
  }
  return score;
}

// A page: for each key head kKeyBlock keys, then as many values, a row each; of int8 then a scale
// for each key and for each value. At most kv_page_floats of the shape.
struct PageLayout {
  explicit PageLayout(const AttentionShape& shape)
      : cache(shape.cache),
        row_bytes(shape.head_width *
                  (shape.cache == CacheType::f32 ? 4 : (shape.cache == CacheType::bf16 ? 2 : 1))),
        head_bytes(2 * kKeyBlock * row_bytes +
                   (shape.cache == CacheType::int8
                        ? 2 * kKeyBlock * static_cast<Index>(sizeof(float))
                        : 0)) {}

  // Row `slot` of the keys; its value lies kKeyBlock rows behind it.
  template <class Page>
  __device__ auto* key(Page* page, Index kv_head, Index slot) const {
    using Bytes = std::conditional_t<std::is_const_v<Page>, const unsigned char, unsigned char>;
    return reinterpret_cast<Bytes*>(page) + kv_head * head_bytes + slot * row_bytes;
  }
  // The key's scale; its value's lies kKeyBlock behind it.
  template <class Page>
  __device__ Page* scale(Page* page, Index kv_head, Index slot) const {
    return reinterpret_cast<Page*>(key(page, kv_head, 2 * kKeyBlock)) + slot;
  }

  CacheType cache;
  Index row_bytes, head_bytes;
};

}  // namespace tutti::kernels::cuda
