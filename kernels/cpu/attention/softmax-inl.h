// The online softmax of sixteen queries against one block of keys, queries in lanes.
//
// Scores lie key by key, so that maxima and sums over keys need no fold along a vector. The sum is
// that of sixteen lanes over keys i, i + 16, i + 32, i + 48 and their fold, addition by addition:
// the bits of a query that is decoded alone, keys in lanes.
#if defined(TUTTI_ATTENTION_SOFTMAX_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TUTTI_ATTENTION_SOFTMAX_INL
#undef TUTTI_ATTENTION_SOFTMAX_INL
#else
#define TUTTI_ATTENTION_SOFTMAX_INL
#endif

#include "kernels/cpu/attention/score-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

// From one key's scores of a block of queries to the next key's; odd in cache lines.
inline constexpr Index kScoreStride = kKeyBlock + kLanes;

// A pass of its own over a block that is in L1: fp32 pays nothing for it.
inline void round_scores(float* scores, Index keys, Index queries) {
  for (Index key = 0; key < keys; ++key) {
    float* const row = scores + key * kScoreStride;
    round_in_fp32(row, row, queries);
  }
}

struct QueryGroup {
  float* scores = nullptr;  // of the first query; become exp(score - top)
  float* top = nullptr;     // [16] largest score so far
  float* total = nullptr;   // [16] sum of exp(score - top)
  float* shrink = nullptr;  // [16] written: what sums under the old top are multiplied by
  // Of a block that is not seen whole, relative to its first key: the queries' positions and what
  // each sees, and the end of what any of them sees.
  const float* position = nullptr;
  const float* first = nullptr;
  const float* end = nullptr;
  Index keys = kKeyBlock;
  // int8 pages: [64] each, else null.
  const float* key_scales = nullptr;
  const float* value_scales = nullptr;
};

// The score of one key, minus infinity where it is not seen.
template <Block kBlock, Rule kRule>
HWY_INLINE Lanes score_of_key(const QueryGroup& group, const ScoreRule& rule, Index key) {
  Lanes score = load(group.scores + key * kScoreStride);
  const Lanes place = splat(static_cast<float>(key));
  if constexpr (kRule == Rule::plain) {
    score = score * splat(rule.scale);
  } else {
    if (group.key_scales != nullptr) score = score * splat(group.key_scales[key]);
    score = scored(rule, score, load(group.position) - place);
  }
  if constexpr (kBlock == Block::part) {
    score = select_less(place, load(group.end), score, lowest());
    score = select_less(place, load(group.first), lowest(), score);
  }
  return score;
}

// Where scores have the order of the products, the scale is multiplied in the end.
template <Block kBlock, Rule kRule>
HWY_INLINE Lanes largest_score(const QueryGroup& group, const ScoreRule& rule, Index keys) {
  Lanes largest[4] = {lowest(), lowest(), lowest(), lowest()};
  const auto take = [&](Index key, Lanes& most) HWY_ATTR {
    if constexpr (kRule == Rule::plain && kBlock == Block::whole) {
      most = max(most, load(group.scores + key * kScoreStride));
      return;
    }
    const Lanes score = score_of_key<kBlock, kRule>(group, rule, key);
    if constexpr (kRule == Rule::any || kBlock == Block::part) {
      store(score, group.scores + key * kScoreStride);
    }
    most = max(most, score);
  };
  Index key = 0;
  for (; key + 4 <= keys; key += 4) {
    take(key, largest[0]);
    take(key + 1, largest[1]);
    take(key + 2, largest[2]);
    take(key + 3, largest[3]);
  }
  if constexpr (kBlock == Block::part) {
    for (; key < keys; ++key) take(key, largest[0]);
  }
  const Lanes all = max(max(largest[0], largest[1]), max(largest[2], largest[3]));
  if constexpr (kRule == Rule::plain && kBlock == Block::whole) return all * splat(rule.scale);
  return all;
}

template <Block kBlock, Rule kRule>
HWY_NOINLINE void softmax_group(const QueryGroup& group, const ScoreRule& rule) {
  const Index keys = kBlock == Block::whole ? kKeyBlock : group.keys;
  const Lanes before = load(group.top);
  const Lanes top = max(before, largest_score<kBlock, kRule>(group, rule, keys));
  float* const scores = group.scores;
  const Lanes scale = splat(rule.scale);
  const Lanes offset = offset_under(top);
  const auto weight = [&](Index key) HWY_ATTR {
    if (kBlock == Block::part && key >= keys) return zero();
    float* const place = scores + key * kScoreStride;
    const Lanes score =
        kRule == Rule::any || kBlock == Block::part ? load(place) : load(place) * scale;
    const Lanes w = exp_of_bounded(score - offset);
    if (kRule == Rule::any && group.value_scales != nullptr) {
      store(w * splat(group.value_scales[key]), place);
    } else {
      store(w, place);
    }
    return w;
  };
  alignas(64) float leaf[kLanes * kLanes];
  for (Index i = 0; i < kLanes; ++i) {
    const Lanes low = weight(i) + weight(i + 16);
    const Lanes high = weight(i + 32) + weight(i + 48);
    store(low + high, leaf + i * kLanes);
  }
  for (Index half = kLanes / 2; half > 0; half /= 2) {
    for (Index i = 0; i < half; ++i) {
      store(load(leaf + i * kLanes) + load(leaf + (i + half) * kLanes), leaf + i * kLanes);
    }
  }
  const Lanes shrink = exp_of_bounded(before - offset);
  store(load(group.total) * shrink + load(leaf), group.total);
  store(shrink, group.shrink);
  store(top, group.top);
}

HWY_INLINE void softmax_group(const QueryGroup& group, const ScoreRule& rule, Block block) {
  const bool plain = rule.plain() && group.key_scales == nullptr;
  if (block == Block::whole) {
    if (plain)
      softmax_group<Block::whole, Rule::plain>(group, rule);
    else
      softmax_group<Block::whole, Rule::any>(group, rule);
  } else {
    if (plain)
      softmax_group<Block::part, Rule::plain>(group, rule);
    else
      softmax_group<Block::part, Rule::any>(group, rule);
  }
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
