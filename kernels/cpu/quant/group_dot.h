// The integer products of cells, once for all instruction sets: V gives sixteen lanes, one output
// each.
//
// V::Codes   64 bytes of codes          V::Ints, V::Floats   sixteen lanes
// V::Sum     four-input products in flight, of codes below 64 or of any (kWide): exact for as many
//            quads as part_of(bits) says; wide codes may be centred (kWideZero, 128 or 0)
//
// Included by one source per instruction set, which defines V in an unnamed namespace: nothing here
// may be shared between them, as each is compiled for its own machine. Loops over rows and groups
// are unrolled, so that sums stay in registers.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include "kernels/cpu/quant/cells.h"

namespace tutti::kernels {
namespace {

template <int kValue>
using Number = std::integral_constant<int, kValue>;

// visit(Number<i>) for i < kCount.
template <int kCount, class Visit>
inline void each_number(const Visit& visit) {
  [&]<int... i>(std::integer_sequence<int, i...>) { (visit(Number<i>{}), ...); }
  (std::make_integer_sequence<int, kCount>{});
}

template <class V, int kBits, int j>
inline typename V::Codes quad_codes(const std::uint8_t* cell) {
  if constexpr (kBits == 8) {
    return V::load(cell + 64 * j);
  } else {
    const auto both = V::load(cell + 64 * (j % 4));
    const auto nibbles = j < 4 ? V::low(both) : V::high(both);
    if constexpr (kBits == 5) {
      return V::join(nibbles, V::template field<4 - j, 0x10>(V::load(cell + 256)));
    } else if constexpr (kBits == 6) {
      const auto upper = V::load(cell + (j < 4 ? 256 : 320));
      return V::join(nibbles, V::template field<4 - 2 * (j % 4), 0x30>(upper));
    } else {
      return nibbles;
    }
  }
}

// The i-th quad that is multiplied: both of a byte's nibbles together, but where halves have scales
// of their own a part has quads of one half only.
template <int kBits, int kPart>
constexpr int quad_at(int i) {
  if (kBits == 6 && kPart == 4) return i;
  constexpr int kByByte[] = {0, 4, 1, 5, 2, 6, 3, 7};
  constexpr int kByHalf[] = {0, 1, 4, 5, 2, 3, 6, 7};
  return kBits == 6 ? kByHalf[i] : kByByte[i];
}

// What all rows read of a cell's scales, once for all of them.
template <class V>
struct CellScales {
  typename V::SubScale first{};  // K formats: by which integer sums are multiplied
  typename V::Ints half[2]{};    // q6_k: the same, of each half
  typename V::Ints zero{};       // q6_k: what codes are too large by, by the halves' sums of x
  typename V::Floats scale{};
  typename V::Floats min{};
  typename V::Floats sub_min{};  // K formats: by which the sum of x is multiplied
};

template <class V, WeightFormat kFormat>
inline CellScales<V> read_scales(const std::uint8_t* scales, const std::uint8_t* super) {
  CellScales<V> of;
  if constexpr (kFormat == WeightFormat::int4_group) {
    of.scale = V::halves(scales);
    of.min = V::halves(scales + 32);
  } else if constexpr (kFormat == WeightFormat::q4_k || kFormat == WeightFormat::q5_k) {
    of.first = V::sub_scale(V::bytes(scales));
    of.sub_min = V::to_floats(V::bytes(scales + 16));
    of.scale = V::halves(super);
    of.min = V::halves(super + 32);
  } else if constexpr (kFormat == WeightFormat::q6_k) {
    of.half[0] = V::signed_bytes(scales);
    of.half[1] = V::signed_bytes(scales + 16);
    const auto zero = V::splat_int(-zero_of(kFormat));
    of.zero = V::pairs(V::mul_int(of.half[0], zero), V::mul_int(of.half[1], zero));
    of.scale = V::halves(super);
  } else {
    of.scale = V::halves(scales);
  }
  return of;
}

// A part's sums as integers, by the scale of the half that quad j lies in.
template <class V, WeightFormat kFormat, int j>
inline typename V::Ints close_part(
    const typename V::template Sum<layout_of(kFormat).bits == 8>& part, const CellScales<V>& of) {
  constexpr bool kWide = layout_of(kFormat).bits == 8;
  if constexpr (kFormat == WeightFormat::q4_k || kFormat == WeightFormat::q5_k) {
    return V::sub_scaled(part, of.first);
  } else if constexpr (kFormat == WeightFormat::q6_k) {
    return V::scaled(part, of.half[j < 4 ? 0 : 1]);
  } else {
    return V::template total<kWide>(part);
  }
}

// Wide codes that are centred have no zero.
template <class V>
constexpr bool adds_start(WeightFormat format) {
  return starts_cells(format) && !V::kStartsInSum &&
         (layout_of(format).bits != 8 || V::kWideZero != 0);
}

// What one cell adds to a row's sums; `halves` are the sums of x's two halves.
template <class V, WeightFormat kFormat>
inline typename V::Floats add_cell(typename V::Floats sum, typename V::Ints codes,
                                   const CellScales<V>& of, float x_scale, const CellTerm* term,
                                   const std::int16_t* halves) {
  constexpr bool kSub = kFormat == WeightFormat::q4_k || kFormat == WeightFormat::q5_k;
  const auto x = V::splat(x_scale);
  if constexpr (kFormat == WeightFormat::q6_k) codes = V::add_pairs(codes, of.zero, halves);
  if constexpr (adds_start<V>(kFormat)) codes = V::add(codes, V::splat_int(term->start));
  auto value = V::to_floats(codes);
  if constexpr (kSub) value = V::sub_scaled(value, of.first);
  sum = V::fma(value, V::mul(of.scale, x), sum);
  if constexpr (has_minimum(kFormat)) {
    const auto mins = V::splat(term->sum);
    const auto by = V::mul(of.min, x);
    if constexpr (kSub) return V::fnma(V::mul(of.sub_min, mins), by, sum);
    return V::fma(mins, by, sum);
  }
  return sum;
}

inline constexpr Index kAheadBytes = 2048;

// Each quad's codes are unpacked once for all rows, and x is read once for all groups. Integer sums
// are exact, so their order is free; the cells are one chain.
template <class V, WeightFormat kFormat, int kRows, int kGroups>
void run_cells(const GroupCall& call, Index row, Index group) {
  constexpr CellLayout kLayout = layout_of(kFormat);
  constexpr int kBits = kLayout.bits;
  constexpr bool kWide = kBits == 8;
  constexpr int kPart = V::part_of(kBits);
  constexpr bool kTerms = starts_cells(kFormat) || has_minimum(kFormat);
  const Index step = kLayout.group_bytes(call.cells);
  const std::uint8_t* const base = call.group + group * step;
  float* const out = call.sums + row * call.sums_stride + group * kGroup;
  typename V::Floats sum[kRows][kGroups];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; ++g) {
      sum[r][g] = V::load_floats(out + r * call.sums_stride + g * kGroup);
    }
  }
  const std::int8_t* const x = call.x + row * call.cells * kCell;
  const CellTerm* const terms = kTerms ? call.terms + row * call.cells : nullptr;
  for (Index c = 0; c < call.cells; ++c) {
    // The machine looks fewer cells ahead than memory is far away.
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; ++g) {
      for (Index line = 0; line < kLayout.cell(); line += 64) {
        __builtin_prefetch(base + g * step + kLayout.cell_at(c) + kAheadBytes + line);
      }
    }
    typename V::Ints whole[kRows][kGroups];
    CellScales<V> of[kGroups];
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; ++g) {
      const std::uint8_t* const cell = base + g * step + kLayout.cell_at(c);
      of[g] =
          read_scales<V, kFormat>(cell + kLayout.codes(), base + g * step + kLayout.super_at(c));
    }
    each_number<kQuads / kPart>([&]<int p>(Number<p>) {
      typename V::template Sum<kWide> part[kRows][kGroups];
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
        for (int g = 0; g < kGroups; ++g) {
          constexpr bool kFromStart = starts_cells(kFormat) && V::kStartsInSum && p == 0;
          part[r][g] = V::template from<kWide>(kFromStart ? terms[r * call.cells + c].start : 0);
        }
      }
      each_number<kPart>([&]<int i>(Number<i>) {
        constexpr int j = quad_at<kBits, kPart>(p * kPart + i);
        typename V::Codes codes[kGroups];
#pragma GCC unroll 4
        for (int g = 0; g < kGroups; ++g) {
          codes[g] = quad_codes<V, kBits, j>(base + g * step + kLayout.cell_at(c));
        }
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
          for (int g = 0; g < kGroups; ++g) {
            part[r][g] = V::template dot<kWide>(part[r][g], codes[g],
                                                x + (r * call.cells + c) * kCell + 4 * j);
          }
        }
      });
      constexpr int kLast = quad_at<kBits, kPart>(p * kPart);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
        for (int g = 0; g < kGroups; ++g) {
          const auto closed = close_part<V, kFormat, kLast>(part[r][g], of[g]);
          whole[r][g] = p == 0 ? closed : V::add(whole[r][g], closed);
        }
      }
    });
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Index at = (row + r) * call.cells + c;
#pragma GCC unroll 4
      for (int g = 0; g < kGroups; ++g) {
        sum[r][g] = add_cell<V, kFormat>(sum[r][g], whole[r][g], of[g], call.scales[at],
                                         kTerms ? terms + r * call.cells + c : nullptr,
                                         call.halves + at * 2);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; ++g) {
      V::store_floats(sum[r][g], out + r * call.sums_stride + g * kGroup);
    }
  }
}

struct Range {
  Index first, count;
};

template <class V>
__attribute__((noinline)) void scale_channel(const GroupCall& call, Range rows, Range groups,
                                             const typename V::Ints* totals) {
  constexpr CellLayout kLayout = layout_of(WeightFormat::int8_channel);
  for (Index r = rows.first; r < rows.first + rows.count; ++r) {
    const std::int32_t start = V::kWideZero != 0 ? call.terms[r * call.cells].start : 0;
    for (Index g = groups.first; g < groups.first + groups.count; ++g) {
      float* const place = call.sums + r * call.sums_stride + g * kGroup;
      const std::uint8_t* const scales = call.group + g * kLayout.group_bytes(call.cells);
      const auto codes = V::add(*totals++, V::splat_int(start));
      const auto scale = V::mul(V::load_floats(reinterpret_cast<const float*>(scales)),
                                V::splat(call.scales[r * call.cells]));
      V::store_floats(V::fma(V::to_floats(codes), scale, V::load_floats(place)), place);
    }
  }
}

// int8 by int8 over all of K: integers only, scaled once at the end.
template <class V, int kRows, int kGroups>
void run_channel(const GroupCall& call, Index row, Index group) {
  constexpr CellLayout kLayout = layout_of(WeightFormat::int8_channel);
  constexpr bool kAsk = kRows <= 4;  // as in run_cells
  const Index step = kLayout.group_bytes(call.cells);
  const std::uint8_t* const base = call.group + group * step;
  // With more rows the first tiles ask for a group each of those that come next.
  const Index tile = row / kRows;
  const bool asks = !kAsk && call.next != nullptr && tile < kGroups;
  const std::uint8_t* const ahead = asks ? call.next + tile * step : base;
  typename V::template Sum<true> sum[kRows][kGroups];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int g = 0; g < kGroups; ++g) sum[r][g] = V::template from<true>(0);
  }
  const Index inputs = call.cells * kCell;
  const std::int8_t* const x = call.x + row * inputs;
  for (Index k = 0; k < inputs; k += 4) {
    if constexpr (kAsk) {
      for (int g = 0; g < kGroups; ++g) {
        __builtin_prefetch(base + g * step + kLayout.header + k * 16 + kAheadBytes);
      }
    }
    if constexpr (!kAsk) __builtin_prefetch(ahead + kLayout.header + k * 16, 0, 2);
    typename V::Codes codes[kGroups];
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; ++g) codes[g] = V::load(base + g * step + kLayout.header + k * 16);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int g = 0; g < kGroups; ++g) {
        sum[r][g] = V::template dot<true>(sum[r][g], codes[g], x + r * inputs + k);
      }
    }
  }
  // Through memory: what follows is too long for gcc to unroll, and would keep the sums there.
  typename V::Ints totals[kRows][kGroups];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int g = 0; g < kGroups; ++g) totals[r][g] = V::template total<true>(sum[r][g]);
  }
  scale_channel<V>(call, {row, kRows}, {group, kGroups}, &totals[0][0]);
}

template <class V, int kGroups>
void run_channel_rows(const GroupCall& call, Index group) {
  Index row = 0;
  for (; row + V::kChannelRows <= call.rows; row += V::kChannelRows) {
    run_channel<V, V::kChannelRows, kGroups>(call, row, group);
  }
  if constexpr (V::kChannelRows > 4) {
    if (row + 4 <= call.rows) {
      run_channel<V, 4, kGroups>(call, row, group);
      row += 4;
    }
  }
  for (; row + 2 <= call.rows; row += 2) run_channel<V, 2, kGroups>(call, row, group);
  for (; row < call.rows; ++row) run_channel<V, 1, kGroups>(call, row, group);
}

template <class V>
void channel_dot(const GroupCall& call) {
  Index group = 0;
  for (; group + V::kChannelGroups <= call.groups; group += V::kChannelGroups) {
    run_channel_rows<V, V::kChannelGroups>(call, group);
  }
  for (; group < call.groups; ++group) run_channel_rows<V, 1>(call, group);
}

template <class V, WeightFormat kFormat, int kGroups>
void run_cell_rows(const GroupCall& call, Index group) {
  Index row = 0;
  for (; row + 4 <= call.rows; row += 4) run_cells<V, kFormat, 4, kGroups>(call, row, group);
  switch (call.rows - row) {
    case 3: return run_cells<V, kFormat, 3, kGroups>(call, row, group);
    case 2: return run_cells<V, kFormat, 2, kGroups>(call, row, group);
    case 1: return run_cells<V, kFormat, 1, kGroups>(call, row, group);
    default: return;
  }
}

template <class V, WeightFormat kFormat>
void group_dot(const GroupCall& call) {
  Index group = 0;
  for (; group + V::kCellGroups <= call.groups; group += V::kCellGroups) {
    run_cell_rows<V, kFormat, V::kCellGroups>(call, group);
  }
  for (; group < call.groups; ++group) run_cell_rows<V, kFormat, 1>(call, group);
}

template <class V>
GroupDot dot_of(WeightFormat format) {
  switch (format) {
    case WeightFormat::bf16: return nullptr;
    case WeightFormat::int8_channel: return channel_dot<V>;
    case WeightFormat::int4_group: return group_dot<V, WeightFormat::int4_group>;
    case WeightFormat::nf4: return nullptr;
    case WeightFormat::q8_0: return group_dot<V, WeightFormat::q8_0>;
    case WeightFormat::q4_0: return group_dot<V, WeightFormat::q4_0>;
    case WeightFormat::q5_0: return group_dot<V, WeightFormat::q5_0>;
    case WeightFormat::q4_k: return group_dot<V, WeightFormat::q4_k>;
    case WeightFormat::q5_k: return group_dot<V, WeightFormat::q5_k>;
    case WeightFormat::q6_k: return group_dot<V, WeightFormat::q6_k>;
  }
  return nullptr;
}

}  // namespace
}  // namespace tutti::kernels
