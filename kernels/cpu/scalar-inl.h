// Sixteen lanes computed one after the other, with the names that our kernels use of Highway: the
// scalar path.
//
// It is what the vector paths are checked against: each lane is plain C++ with std::fma, which
// rounds once (Highway's own scalar targets round a multiply-add twice). The compiler may still
// group lanes, which cannot change a bit. NaNs and zeros of min and max follow x86: the second
// operand.
//
// Included by lanes-inl.h.
#if defined(TUTTI_SCALAR_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TUTTI_SCALAR_INL
#undef TUTTI_SCALAR_INL
#else
#define TUTTI_SCALAR_INL
#endif

#include <bit>
#include <climits>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE::hn {

// Which vectors an operation is about: `kCount` lanes of T.
template <class T, int kCount>
struct FixedTag {
  using Lane = T;
  static constexpr int kLaneCount = kCount;
};
template <class T>
using ScalableTag = FixedTag<T, 64 / sizeof(T)>;
template <class T, class Tag>
using Rebind = FixedTag<T, Tag::kLaneCount>;
template <class Tag>
using RebindToSigned =
    FixedTag<std::conditional_t<sizeof(typename Tag::Lane) == 4, std::int32_t, std::int64_t>,
             Tag::kLaneCount>;

template <class T, int kCount>
struct Several {
  T lane[kCount];
};
template <class Tag>
using Vec = Several<typename Tag::Lane, Tag::kLaneCount>;

template <class T, int kCount>
struct Chosen {
  bool lane[kCount];
};

// Each lane of the result by itself.
template <class Result, class Compute>
HWY_INLINE Result by_lane(const Compute& compute) {
  Result result;
  for (int i = 0; i < static_cast<int>(sizeof(result.lane) / sizeof(result.lane[0])); ++i) {
    result.lane[i] = compute(i);
  }
  return result;
}

template <class Tag>
HWY_INLINE Vec<Tag> Set(Tag, typename Tag::Lane value) {
  return by_lane<Vec<Tag>>([&](int) { return value; });
}
template <class Tag>
HWY_INLINE Vec<Tag> Zero(Tag) {
  return {};
}
template <class Tag>
HWY_INLINE Vec<Tag> LoadU(Tag, const typename Tag::Lane* from) {
  return by_lane<Vec<Tag>>([&](int i) { return from[i]; });
}
template <class Tag>
HWY_INLINE void StoreU(const Vec<Tag>& x, Tag, typename Tag::Lane* to) {
  for (int i = 0; i < Tag::kLaneCount; ++i) to[i] = x.lane[i];
}

template <class T, int kCount>
HWY_INLINE Several<T, kCount> Add(const Several<T, kCount>& a, const Several<T, kCount>& b) {
  return by_lane<Several<T, kCount>>([&](int i) { return a.lane[i] + b.lane[i]; });
}
template <class T, int kCount>
HWY_INLINE Several<T, kCount> Sub(const Several<T, kCount>& a, const Several<T, kCount>& b) {
  return by_lane<Several<T, kCount>>([&](int i) { return a.lane[i] - b.lane[i]; });
}
template <class T, int kCount>
HWY_INLINE Several<T, kCount> Mul(const Several<T, kCount>& a, const Several<T, kCount>& b) {
  return by_lane<Several<T, kCount>>([&](int i) { return a.lane[i] * b.lane[i]; });
}
template <class T, int kCount>
HWY_INLINE Several<T, kCount> Div(const Several<T, kCount>& a, const Several<T, kCount>& b) {
  return by_lane<Several<T, kCount>>([&](int i) { return a.lane[i] / b.lane[i]; });
}
// a * b + c and c - a * b, rounded once.
template <class T, int kCount>
HWY_INLINE Several<T, kCount> MulAdd(const Several<T, kCount>& a, const Several<T, kCount>& b,
                                     const Several<T, kCount>& c) {
  return by_lane<Several<T, kCount>>(
      [&](int i) { return std::fma(a.lane[i], b.lane[i], c.lane[i]); });
}
template <class T, int kCount>
HWY_INLINE Several<T, kCount> NegMulAdd(const Several<T, kCount>& a, const Several<T, kCount>& b,
                                        const Several<T, kCount>& c) {
  return by_lane<Several<T, kCount>>(
      [&](int i) { return std::fma(-a.lane[i], b.lane[i], c.lane[i]); });
}
template <class T, int kCount>
HWY_INLINE Several<T, kCount> Max(const Several<T, kCount>& a, const Several<T, kCount>& b) {
  return by_lane<Several<T, kCount>>(
      [&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
}
template <class T, int kCount>
HWY_INLINE Several<T, kCount> Min(const Several<T, kCount>& a, const Several<T, kCount>& b) {
  return by_lane<Several<T, kCount>>(
      [&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
}
template <class T, int kCount>
HWY_INLINE Several<T, kCount> Sqrt(const Several<T, kCount>& x) {
  return by_lane<Several<T, kCount>>([&](int i) { return std::sqrt(x.lane[i]); });
}
// To the nearest integer, ties to even (the mode that float_mode.h keeps).
template <class T, int kCount>
HWY_INLINE Several<T, kCount> Round(const Several<T, kCount>& x) {
  return by_lane<Several<T, kCount>>([&](int i) { return std::nearbyint(x.lane[i]); });
}
template <int kBits, class T, int kCount>
HWY_INLINE Several<T, kCount> ShiftLeft(const Several<T, kCount>& x) {
  using Unsigned = std::make_unsigned_t<T>;
  return by_lane<Several<T, kCount>>(
      [&](int i) { return static_cast<T>(static_cast<Unsigned>(x.lane[i]) << kBits); });
}

// The sign of b on a, which has none.
template <class T, int kCount>
HWY_INLINE Several<T, kCount> CopySignToAbs(const Several<T, kCount>& a,
                                            const Several<T, kCount>& b) {
  return by_lane<Several<T, kCount>>([&](int i) { return std::copysign(a.lane[i], b.lane[i]); });
}

template <class T, int kCount>
HWY_INLINE Chosen<T, kCount> Lt(const Several<T, kCount>& a, const Several<T, kCount>& b) {
  return by_lane<Chosen<T, kCount>>([&](int i) { return a.lane[i] < b.lane[i]; });
}
template <class Tag>
HWY_INLINE auto FirstN(Tag, std::size_t count) {
  return by_lane<Chosen<typename Tag::Lane, Tag::kLaneCount>>(
      [&](int i) { return static_cast<std::size_t>(i) < count; });
}
template <class T, int kCount>
HWY_INLINE Several<T, kCount> IfThenElse(const Chosen<T, kCount>& chosen,
                                         const Several<T, kCount>& yes,
                                         const Several<T, kCount>& no) {
  return by_lane<Several<T, kCount>>(
      [&](int i) { return chosen.lane[i] ? yes.lane[i] : no.lane[i]; });
}

// Towards zero; what fits no integer gives INT_MIN, as on x86.
template <class Tag, int kCount>
HWY_INLINE Vec<Tag> ConvertTo(Tag, const Several<float, kCount>& x) {
  return by_lane<Vec<Tag>>([&](int i) {
    const bool fits = x.lane[i] >= -0x1p31F && x.lane[i] < 0x1p31F;
    return fits ? static_cast<std::int32_t>(x.lane[i]) : INT_MIN;
  });
}
template <class Tag, class T, int kCount>
HWY_INLINE Vec<Tag> PromoteTo(Tag, const Several<T, kCount>& x) {
  return by_lane<Vec<Tag>>([&](int i) { return static_cast<typename Tag::Lane>(x.lane[i]); });
}
template <class Tag, class T, int kCount>
HWY_INLINE Vec<Tag> BitCast(Tag, const Several<T, kCount>& x) {
  return by_lane<Vec<Tag>>([&](int i) { return std::bit_cast<typename Tag::Lane>(x.lane[i]); });
}

template <class T, int kCount>
HWY_INLINE T GetLane(const Several<T, kCount>& x) {
  return x.lane[0];
}
template <class Tag, class T, int kCount>
HWY_INLINE Vec<Tag> LowerHalf(Tag, const Several<T, kCount>& x) {
  return by_lane<Vec<Tag>>([&](int i) { return x.lane[i]; });
}
template <class Tag, class T, int kCount>
HWY_INLINE Vec<Tag> UpperHalf(Tag, const Several<T, kCount>& x) {
  return by_lane<Vec<Tag>>([&](int i) { return x.lane[i + Tag::kLaneCount]; });
}
// Swaps pairs of lanes, and neighbours.
template <class T, int kCount>
HWY_INLINE Several<T, kCount> Shuffle1032(const Several<T, kCount>& x) {
  return by_lane<Several<T, kCount>>([&](int i) { return x.lane[i ^ 2]; });
}
template <class T, int kCount>
HWY_INLINE Several<T, kCount> Shuffle2301(const Several<T, kCount>& x) {
  return by_lane<Several<T, kCount>>([&](int i) { return x.lane[i ^ 1]; });
}

}  // namespace tutti::kernels::HWY_NAMESPACE::hn
HWY_AFTER_NAMESPACE();

#endif
