// Sixteen logical lanes: one AVX-512 vector or two AVX2 vectors of Highway, or sixteen scalars
// (scalar-inl.h); the same bits every way.
//
// An element-wise kernel written with Lanes rounds alike on all paths, because each lane sees the
// same operations; a sum along a vector accumulates in sixteen lanes and folds them by one fixed
// tree. Included once per target (foreach _target); hence no #pragma once.
#if defined(TUTTI_LANES_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TUTTI_LANES_INL
#undef TUTTI_LANES_INL
#else
#define TUTTI_LANES_INL
#endif

#include <concepts>
#include <cstdint>

#include <hwy/highway.h>
#include "kernels/tensor/matrix.h"

#if HWY_TARGET == HWY_SCALAR
#include "kernels/cpu/scalar-inl.h"
#endif

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

#if HWY_TARGET != HWY_SCALAR
namespace hn = hwy::HWY_NAMESPACE;
#endif

using Tag = hn::ScalableTag<float>;
using Vector = hn::Vec<Tag>;
inline constexpr Tag kTag{};
inline constexpr Index kVectorLanes = sizeof(Vector) / sizeof(float);
inline constexpr Index kLanes = 16;

#undef TUTTI_LANES
#if HWY_TARGET == HWY_AVX2
struct Lanes {
  Vector a, b;
};
#define TUTTI_LANES(expression_a, expression_b) \
  Lanes { expression_a, expression_b }
#else
struct Lanes {
  Vector a;
};
#define TUTTI_LANES(expression_a, expression_b) \
  Lanes { expression_a }
#endif

HWY_INLINE Lanes load(const float* from) {
  return TUTTI_LANES(hn::LoadU(kTag, from), hn::LoadU(kTag, from + kVectorLanes));
}
HWY_INLINE Lanes splat(float value) {
  return TUTTI_LANES(hn::Set(kTag, value), hn::Set(kTag, value));
}
HWY_INLINE Lanes zero() { return TUTTI_LANES(hn::Zero(kTag), hn::Zero(kTag)); }
HWY_INLINE void store(const Lanes& x, float* to) {
  hn::StoreU(x.a, kTag, to);
#if HWY_TARGET == HWY_AVX2
  hn::StoreU(x.b, kTag, to + kVectorLanes);
#endif
}

HWY_INLINE Lanes operator+(const Lanes& x, const Lanes& y) {
  return TUTTI_LANES(hn::Add(x.a, y.a), hn::Add(x.b, y.b));
}
HWY_INLINE Lanes operator-(const Lanes& x, const Lanes& y) {
  return TUTTI_LANES(hn::Sub(x.a, y.a), hn::Sub(x.b, y.b));
}
HWY_INLINE Lanes operator*(const Lanes& x, const Lanes& y) {
  return TUTTI_LANES(hn::Mul(x.a, y.a), hn::Mul(x.b, y.b));
}
HWY_INLINE Lanes operator/(const Lanes& x, const Lanes& y) {
  return TUTTI_LANES(hn::Div(x.a, y.a), hn::Div(x.b, y.b));
}
// x * y + z, rounded once; and z - x * y.
HWY_INLINE Lanes fma(const Lanes& x, const Lanes& y, const Lanes& z) {
  return TUTTI_LANES(hn::MulAdd(x.a, y.a, z.a), hn::MulAdd(x.b, y.b, z.b));
}
HWY_INLINE Lanes fnma(const Lanes& x, const Lanes& y, const Lanes& z) {
  return TUTTI_LANES(hn::NegMulAdd(x.a, y.a, z.a), hn::NegMulAdd(x.b, y.b, z.b));
}
HWY_INLINE Lanes max(const Lanes& x, const Lanes& y) {
  return TUTTI_LANES(hn::Max(x.a, y.a), hn::Max(x.b, y.b));
}
HWY_INLINE Lanes min(const Lanes& x, const Lanes& y) {
  return TUTTI_LANES(hn::Min(x.a, y.a), hn::Min(x.b, y.b));
}
HWY_INLINE Lanes sqrt(const Lanes& x) { return TUTTI_LANES(hn::Sqrt(x.a), hn::Sqrt(x.b)); }

// The first n of sixteen lanes, the others zero; n in 0..16. Memory beyond is not touched.
HWY_INLINE Lanes load_first(const float* from, Index n) {
  alignas(64) float whole[kLanes] = {};
  for (Index i = 0; i < n; ++i) whole[i] = from[i];
  return load(whole);
}
HWY_INLINE void store_first(const Lanes& x, float* to, Index n) {
  alignas(64) float whole[kLanes];
  store(x, whole);
  for (Index i = 0; i < n; ++i) to[i] = whole[i];
}

// Lanes [0, n) of x and `other` beyond; n may be outside of 0..16.
HWY_INLINE Lanes keep_first(const Lanes& x, Index n, const Lanes& other) {
  const auto first = [n](Index offset) HWY_ATTR {
    const Index count = n - offset;
    const Index bounded = count < 0 ? 0 : (count > kVectorLanes ? kVectorLanes : count);
    return hn::FirstN(kTag, static_cast<std::size_t>(bounded));
  };
  return TUTTI_LANES(hn::IfThenElse(first(0), x.a, other.a),
                     hn::IfThenElse(first(kVectorLanes), x.b, other.b));
}

// `yes` where a < b, else `no` (also where one of them is NaN).
HWY_INLINE Lanes select_less(const Lanes& a, const Lanes& b, const Lanes& yes, const Lanes& no) {
  return TUTTI_LANES(hn::IfThenElse(hn::Lt(a.a, b.a), yes.a, no.a),
                     hn::IfThenElse(hn::Lt(a.b, b.b), yes.b, no.b));
}
// A NaN stays NaN, and zero becomes +0.
HWY_INLINE Lanes abs(const Lanes& x) { return max(x, zero() - x); }
// `size`, which is no negative number, with the sign of `sign`.
HWY_INLINE Lanes with_sign(const Lanes& size, const Lanes& sign) {
  return TUTTI_LANES(hn::CopySignToAbs(size.a, sign.a), hn::CopySignToAbs(size.b, sign.b));
}

// 2^n of t = n + 1.5 * 2^23, whose last bits are n: the exponent is made of them by a shift.
HWY_INLINE Vector vector_power_of_two(Vector t) {
  const hn::RebindToSigned<Tag> whole;
  const auto exponent = hn::Add(hn::BitCast(whole, t), hn::Set(whole, 127));
  return hn::BitCast(kTag, hn::ShiftLeft<23>(exponent));
}
HWY_INLINE Lanes power_of_two(const Lanes& t) {
  return TUTTI_LANES(vector_power_of_two(t.a), vector_power_of_two(t.b));
}

// Folds sixteen lanes: 16 -> 8 -> 4 -> 2 -> 1, lane i with lane i + half.
template <class Fold>
HWY_INLINE float fold_lanes(const Lanes& x, const Fold& fold) {
  [[maybe_unused]] const hn::FixedTag<float, 8> eight_tag;
  const hn::FixedTag<float, 4> four_tag;
#if HWY_TARGET == HWY_AVX2
  const auto eight = fold(x.a, x.b);
#else
  const auto eight = fold(hn::LowerHalf(eight_tag, x.a), hn::UpperHalf(eight_tag, x.a));
#endif
  const auto four = fold(hn::LowerHalf(four_tag, eight), hn::UpperHalf(four_tag, eight));
  const auto two = fold(four, hn::Shuffle1032(four));
  return hn::GetLane(fold(two, hn::Shuffle2301(two)));
}
HWY_INLINE float sum_lanes(const Lanes& x) {
  return fold_lanes(x, [](auto a, auto b) HWY_ATTR { return hn::Add(a, b); });
}
HWY_INLINE float max_lanes(const Lanes& x) {
  return fold_lanes(x, [](auto a, auto b) HWY_ATTR { return hn::Max(a, b); });
}

// Calls body(i, part) for each group of sixteen in [0, n): part is Whole, for the last one Some,
// and goes on to load(from, part), store(x, to, part) and keep(x, part, beyond).
struct Whole {};
struct Some {
  Index count;
};
HWY_INLINE Lanes load(const float* from, Whole) { return load(from); }
HWY_INLINE Lanes load(const float* from, Some part) { return load_first(from, part.count); }
HWY_INLINE void store(const Lanes& x, float* to, Whole) { store(x, to); }
HWY_INLINE void store(const Lanes& x, float* to, Some part) { store_first(x, to, part.count); }
HWY_INLINE Lanes keep(const Lanes& x, Whole, const Lanes&) { return x; }
HWY_INLINE Lanes keep(const Lanes& x, Some part, const Lanes& beyond) {
  return keep_first(x, part.count, beyond);
}

template <class Body>
HWY_INLINE void each_lanes(Index n, const Body& body) {
  Index i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i, Whole{});
  if (i < n) body(i, Some{n - i});
}

// Two groups of sixteen lanes in step, for long chains of operations on each number.
//
// An exponential is a chain of seventy cycles, and a core holds too few operations that wait for
// others to reach far into the next group. With every operation done for two groups before the next
// one, it always has two chains to go on with (lab/rows.md). A lane sees the same operations, so
// bits are those of one group after the other.
//
// One group stands for two alike, as constants do.
struct Twice {
  Lanes first, second;

  HWY_INLINE Twice(const Lanes& both) : first(both), second(both) {}
  HWY_INLINE Twice(const Lanes& one, const Lanes& other) : first(one), second(other) {}
};

template <class L>
concept SomeLanes = std::same_as<L, Lanes> || std::same_as<L, Twice>;

HWY_INLINE Twice operator+(const Twice& x, const Twice& y) {
  return {x.first + y.first, x.second + y.second};
}
HWY_INLINE Twice operator-(const Twice& x, const Twice& y) {
  return {x.first - y.first, x.second - y.second};
}
HWY_INLINE Twice operator*(const Twice& x, const Twice& y) {
  return {x.first * y.first, x.second * y.second};
}
HWY_INLINE Twice operator/(const Twice& x, const Twice& y) {
  return {x.first / y.first, x.second / y.second};
}
HWY_INLINE Twice fma(const Twice& x, const Twice& y, const Twice& z) {
  return {fma(x.first, y.first, z.first), fma(x.second, y.second, z.second)};
}
HWY_INLINE Twice fnma(const Twice& x, const Twice& y, const Twice& z) {
  return {fnma(x.first, y.first, z.first), fnma(x.second, y.second, z.second)};
}
HWY_INLINE Twice max(const Twice& x, const Twice& y) {
  return {max(x.first, y.first), max(x.second, y.second)};
}
HWY_INLINE Twice min(const Twice& x, const Twice& y) {
  return {min(x.first, y.first), min(x.second, y.second)};
}
HWY_INLINE Twice abs(const Twice& x) { return {abs(x.first), abs(x.second)}; }
HWY_INLINE Twice with_sign(const Twice& size, const Twice& sign) {
  return {with_sign(size.first, sign.first), with_sign(size.second, sign.second)};
}
HWY_INLINE Twice power_of_two(const Twice& t) {
  return {power_of_two(t.first), power_of_two(t.second)};
}
HWY_INLINE Twice select_less(const Twice& a, const Twice& b, const Twice& yes, const Twice& no) {
  return {select_less(a.first, b.first, yes.first, no.first),
          select_less(a.second, b.second, yes.second, no.second)};
}

// The part of each_lanes_twice beside Whole and Some.
struct Both {};
HWY_INLINE Twice load(const float* from, Both) { return {load(from), load(from + kLanes)}; }
HWY_INLINE void store(const Twice& x, float* to, Both) {
  store(x.first, to);
  store(x.second, to + kLanes);
}
HWY_INLINE Twice keep(const Twice& x, Both, const Lanes&) { return x; }

HWY_INLINE Lanes add_in_order(const Lanes& sum, const Lanes& x) { return sum + x; }
HWY_INLINE Lanes add_in_order(const Lanes& sum, const Twice& x) { return sum + x.first + x.second; }

// As each_lanes, two groups at a time where there are two.
template <class Body>
HWY_INLINE void each_lanes_twice(Index n, const Body& body) {
  Index i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) body(i, Both{});
  each_lanes(n - i, [&](Index rest, auto part) { body(i + rest, part); });
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
