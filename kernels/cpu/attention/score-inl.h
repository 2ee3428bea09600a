// From a product of a query with a key to a score, and the parts that prefill and decoding share.
#if defined(TUTTI_ATTENTION_SCORE_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TUTTI_ATTENTION_SCORE_INL
#undef TUTTI_ATTENTION_SCORE_INL
#else
#define TUTTI_ATTENTION_SCORE_INL
#endif

#include <limits>

#include "kernels/cpu/attention/layout.h"
#include "kernels/cpu/attention/task.h"
#include "kernels/cpu/functions-inl.h"
#include "kernels/cpu/product/bf16_row.h"
#include "kernels/ops/math.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

enum class Block { whole, part };  // whether all queries see all keys of a block
enum class Rule { plain, any };    // plain: a score is scale * product, scale > 0

struct ScoreRule {
  ScoreRule(const AttentionShape& shape, Index head)
      : scale(shape.scale),
        cap(shape.soft_cap),
        inverse_cap(shape.soft_cap > 0.0F ? 1.0F / shape.soft_cap : 0.0F),
        slope(shape.slopes != nullptr ? shape.slopes[head] : 0.0F) {}

  // With a scale above zero: that of a block's largest product is the largest score then.
  bool plain() const { return cap == 0.0F && slope == 0.0F && scale > 0.0F; }

  float scale, cap, inverse_cap, slope;
};

// `distance`: query minus key.
HWY_INLINE Lanes scored(const ScoreRule& rule, const Lanes& product, const Lanes& distance) {
  Lanes score = product * splat(rule.scale);
  if (rule.cap > 0.0F) score = splat(rule.cap) * tanh(score * splat(rule.inverse_cap));
  if (rule.slope != 0.0F) score = fnma(splat(rule.slope), abs(distance), score);
  return score;
}

HWY_INLINE Lanes lowest() { return splat(-std::numeric_limits<float>::infinity()); }

// What exponents are relative to, given the largest score so far: zero while a query has seen no
// key or only scores that overflowed, since exp(-inf - 0) is 0 and exp(-inf + inf) is not. By
// query, not by what its tile sees: pieces of one prompt cut tiles differently.
HWY_INLINE Lanes offset_under(const Lanes& top) {
  return select_less(top, splat(std::numeric_limits<float>::lowest()), zero(), top);
}

// `sums` under an old maximum shrink under a new one.
HWY_INLINE void scale_sums(float* sums, Index width, float by) {
  const Lanes factor = splat(by);
  for (Index i = 0; i < width; i += kLanes) store(load(sums + i) * factor, sums + i);
}

// Writes the finished row: out = sums / total.
HWY_INLINE void finish_head(const float* sums, float total, Index width, float* out) {
  const Lanes by = splat(1.0F / total);
  each_lanes(width, [&](Index i, auto part) { store(load(sums + i) * by, out + i, part); });
}

HWY_INLINE float log_sum(float top, float total) {
  return top + static_cast<float>(kernels::log(static_cast<double>(total)));
}

// A vector of the right operand, as fp32: fp32, bf16 and int8.
HWY_INLINE Vector widen(const float* from) { return hn::LoadU(kTag, from); }
#if HWY_TARGET == HWY_SCALAR
HWY_INLINE Vector widen(const std::uint16_t* from) {
  return hn::by_lane<Vector>([&](int i) { return widened(from[i]); });
}
HWY_INLINE Vector widen(const std::int8_t* from) {
  return hn::by_lane<Vector>([&](int i) { return static_cast<float>(from[i]); });
}
#else
HWY_INLINE Vector widen(const std::uint16_t* from) {
  const hn::RebindToUnsigned<Tag> wide;
  const hn::Rebind<std::uint16_t, Tag> narrow;
  return hn::BitCast(kTag, hn::ShiftLeft<16>(hn::PromoteTo(wide, hn::LoadU(narrow, from))));
}
HWY_INLINE Vector widen(const std::int8_t* from) {
  const hn::RebindToSigned<Tag> wide;
  const hn::Rebind<std::int8_t, Tag> narrow;
  return hn::ConvertTo(kTag, hn::PromoteTo(wide, hn::LoadU(narrow, from)));
}
#endif

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
