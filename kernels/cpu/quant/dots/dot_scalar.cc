// Integer products lane by lane: what the other instruction sets are checked by.
#include <cmath>

#include "kernels/cpu/quant/dots/group_dot.h"

namespace tutti::kernels {

namespace {

template <class T, int kCount>
struct Several {
  T lane[kCount];
};

struct Scalar {
  using Codes = Several<std::uint8_t, 64>;
  using Ints = Several<std::int32_t, 16>;
  using Floats = Several<float, 16>;
  static constexpr int kChannelRows = 2;
  static constexpr int kChannelGroups = 1;
  static constexpr int kCellGroups = 1;
  static constexpr bool kScalesLast = false;
  static constexpr int kAsksInto = 3;
  static constexpr int kWideZero = 128;
  static constexpr int part_of(int bits) { return bits == 6 ? 4 : 8; }

  template <class Result, class Compute>
  static Result each(const Compute& compute) {
    Result result;
    for (std::size_t i = 0; i < sizeof(result.lane) / sizeof(result.lane[0]); ++i) {
      result.lane[i] = compute(i);
    }
    return result;
  }

  template <bool kWide>
  using Sum = Ints;
  static constexpr bool kStartsInSum = false;
  template <bool kWide>
  static Ints from(std::int32_t start) {
    return splat_int(start);
  }
  // As the instructions do, sums wrap around: those of wide codes pass 2^31 on their way to a total
  // that does not, once the start is added.
  static std::int32_t wrapping_sum(std::int32_t a, std::int32_t b) {
    return static_cast<std::int32_t>(static_cast<std::uint32_t>(a) + static_cast<std::uint32_t>(b));
  }
  template <bool kWide>
  static Ints dot(Ints sum, const Codes& codes, const std::int8_t* x) {
    for (std::size_t o = 0; o < 16; ++o) {
      for (std::size_t i = 0; i < 4; ++i) {
        sum.lane[o] = wrapping_sum(sum.lane[o], codes.lane[4 * o + i] * x[i]);
      }
    }
    return sum;
  }
  template <bool kWide>
  static Ints total(const Ints& sum) {
    return sum;
  }

  using SubScale = Ints;
  static Ints sub_scale(const Ints& bytes) { return bytes; }
  static Ints sub_scaled(const Ints& sum, const Ints& scale) { return mul_int(sum, scale); }
  static Floats sub_scaled(const Floats& sum, const Ints&) { return sum; }
  static Ints scaled(const Ints& sum, const Ints& scale) { return mul_int(sum, scale); }

  static Codes load(const std::uint8_t* from) {
    return each<Codes>([&](std::size_t i) { return from[i]; });
  }
  static Codes low(const Codes& both) {
    return each<Codes>([&](std::size_t i) { return static_cast<std::uint8_t>(both.lane[i] & 15); });
  }
  static Codes high(const Codes& both) {
    return each<Codes>([&](std::size_t i) { return static_cast<std::uint8_t>(both.lane[i] >> 4); });
  }
  template <int kLeft, int kMask>
  static Codes field(const Codes& bits) {
    return each<Codes>([&](std::size_t i) {
      const int moved = kLeft >= 0 ? bits.lane[i] << (kLeft >= 0 ? kLeft : 0)
                                   : bits.lane[i] >> (kLeft >= 0 ? 0 : -kLeft);
      return static_cast<std::uint8_t>(moved & kMask);
    });
  }
  static Codes join(const Codes& a, const Codes& b) {
    return each<Codes>(
        [&](std::size_t i) { return static_cast<std::uint8_t>(a.lane[i] | b.lane[i]); });
  }
  static Ints add(const Ints& a, const Ints& b) {
    return each<Ints>([&](std::size_t i) { return wrapping_sum(a.lane[i], b.lane[i]); });
  }
  static Ints mul_int(const Ints& a, const Ints& b) {
    return each<Ints>([&](std::size_t i) { return a.lane[i] * b.lane[i]; });
  }
  static Ints pairs(const Ints& low, const Ints& high) {
    return each<Ints>([&](std::size_t i) { return (low.lane[i] & 0xffff) | high.lane[i] * 65536; });
  }
  static Ints add_pairs(const Ints& sum, const Ints& pairs, const std::int16_t* two) {
    return each<Ints>([&](std::size_t i) {
      return sum.lane[i] + static_cast<std::int16_t>(pairs.lane[i] & 0xffff) * two[0] +
             (pairs.lane[i] >> 16) * two[1];
    });
  }
  static Ints splat_int(std::int32_t value) {
    return each<Ints>([&](std::size_t) { return value; });
  }
  static Ints bytes(const std::uint8_t* from) {
    return each<Ints>([&](std::size_t i) { return std::int32_t{from[i]}; });
  }
  static Ints signed_bytes(const std::uint8_t* from) {
    return each<Ints>(
        [&](std::size_t i) { return std::int32_t{static_cast<std::int8_t>(from[i])}; });
  }
  static Floats halves(const std::uint8_t* from) {
    return each<Floats>([&](std::size_t i) {
      return from_half(static_cast<std::uint16_t>(from[2 * i] | (from[2 * i + 1] << 8)));
    });
  }
  static Floats splat(float value) {
    return each<Floats>([&](std::size_t) { return value; });
  }
  static Floats to_floats(const Ints& x) {
    return each<Floats>([&](std::size_t i) { return static_cast<float>(x.lane[i]); });
  }
  static Floats mul(const Floats& a, const Floats& b) {
    return each<Floats>([&](std::size_t i) { return a.lane[i] * b.lane[i]; });
  }
  static Floats fma(const Floats& a, const Floats& b, const Floats& c) {
    return each<Floats>([&](std::size_t i) { return std::fma(a.lane[i], b.lane[i], c.lane[i]); });
  }
  static Floats fnma(const Floats& a, const Floats& b, const Floats& c) {
    return each<Floats>([&](std::size_t i) { return std::fma(-a.lane[i], b.lane[i], c.lane[i]); });
  }
  static Floats load_floats(const float* from) {
    return each<Floats>([&](std::size_t i) { return from[i]; });
  }
  static void store_floats(const Floats& x, float* to) {
    for (std::size_t i = 0; i < 16; ++i) to[i] = x.lane[i];
  }
};

}  // namespace

GroupDot scalar_dot(WeightFormat format) { return dot_of<Scalar>(format); }

}  // namespace tutti::kernels
