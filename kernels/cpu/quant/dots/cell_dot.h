// The integer products of cells, once for all instruction sets: V gives sixteen lanes, one output
// each.
//
// V::Codes   64 bytes of codes          V::Ints, V::Floats   sixteen lanes
// V::Sum     four-input products in flight, of codes below 64 or of any (kWide): exact for as many
//            quads as part_of(bits) says; wide codes may be centred (kWideZero, 128 or 0)
// V::kScalesLast  whether a cell's scales are read behind its codes: lines that ascend are what the
//            machine foresees, and a core alone waits for a few lines at a time. Takes registers
//            for the sums of all parts.
// V::kAsksInto    what lines are asked into: 3 the first cache, 2 the second
//
// Included by one source per instruction set, which defines V in an unnamed namespace: nothing here
// may be shared between them, as each is compiled for its own machine. Loops over rows and groups
// are unrolled, so that sums stay in registers.
#pragma once

#include <algorithm>
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

// visit(row, group) for all of a tile; visits are to be inlined, so that sums stay in registers.
template <int kRows, int kGroups, class Visit>
inline __attribute__((always_inline)) void each_sum(const Visit& visit) {
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; ++g) visit(r, g);
  }
}
#define TUTTI_INLINED __attribute__((always_inline))

// What a tile reads of the image: the cells of its groups.
template <class V, WeightFormat kFormat>
struct GroupCells {
  const std::uint8_t* base;
  Index step;

  const std::uint8_t* cell(int g, Index c) const {
    return base + g * step + layout_of(kFormat).cell_at(c);
  }
  CellScales<V> scales(int g, Index c) const {
    return read_scales<V, kFormat>(cell(g, c) + layout_of(kFormat).codes(),
                                   base + g * step + layout_of(kFormat).super_at(c));
  }
  template <int kGroups>
  void read(Index c, CellScales<V> (&of)[kGroups]) const {
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; ++g) of[g] = scales(g, c);
  }
  // What is asked for beside cell c: the machine looks fewer cells ahead than memory is far away.
  // Behind the last cells come those of the groups that are next.
  template <int kGroups>
  const std::uint8_t* ahead(Index c, Index cells) const {
    constexpr Index kAhead = kAheadBytes / layout_of(kFormat).cell();
    const bool next = c + kAhead >= cells;
    return cell(next ? kGroups : 0, c + kAhead - (next ? cells : 0));
  }
  // One line of each group beside each quad: of many at once, prefetches are dropped.
  template <int kGroups, int kQuad>
  TUTTI_INLINED void ask(const std::uint8_t* first) const {
    constexpr Index kLine = 64;
    constexpr Index kCell = layout_of(kFormat).cell();
    constexpr Index kEnd = kQuad + 1 < kQuads ? std::min((kQuad + 1) * kLine, kCell) : kCell;
    for (Index line = kQuad * kLine; line < kEnd; line += kLine) {
#pragma GCC unroll 4
      for (int g = 0; g < kGroups; ++g)
        __builtin_prefetch(first + g * step + line, 0, V::kAsksInto);
    }
  }
};

// Each quad's codes are unpacked once for all rows, and x is read once for all groups. Integer sums
// are exact, so their order is free; the cells are one chain.
template <class V, WeightFormat kFormat, int kRows, int kGroups>
void run_cells(const GroupCall& call, Index row, Index group) {
  constexpr int kBits = layout_of(kFormat).bits;
  constexpr bool kWide = kBits == 8;
  constexpr int kPart = V::part_of(kBits);
  constexpr int kKept = V::kScalesLast ? kQuads / kPart : 1;
  constexpr bool kTerms = starts_cells(kFormat) || has_minimum(kFormat);
  constexpr auto kEach = []<class Visit>(const Visit& visit)
                             TUTTI_INLINED { each_sum<kRows, kGroups>(visit); };
  const Index step = layout_of(kFormat).group_bytes(call.cells);
  const GroupCells<V, kFormat> groups{call.group + group * step, step};
  float* const out = call.sums + row * call.sums_stride + group * kGroup;
  const auto place = [&](int r, int g)
                         TUTTI_INLINED { return out + r * call.sums_stride + g * kGroup; };
  typename V::Floats sum[kRows][kGroups];
  kEach([&](int r, int g) TUTTI_INLINED { sum[r][g] = V::load_floats(place(r, g)); });
  const std::int8_t* const x = call.x + row * call.cells * kCell;
  const CellTerm* const terms = kTerms ? call.terms + row * call.cells : nullptr;
  for (Index c = 0; c < call.cells; ++c) {
    CellScales<V> of[kGroups];
    const std::uint8_t* const ahead = groups.template ahead<kGroups>(c, call.cells);
    if constexpr (!V::kScalesLast) groups.read(c, of);
    typename V::Ints whole[kRows][kGroups];
    typename V::template Sum<kWide> kept[kKept][kRows][kGroups];
    each_number<kQuads / kPart>([&]<int p>(Number<p>) {
      typename V::template Sum<kWide> part[kRows][kGroups];
      kEach([&](int r, int g) TUTTI_INLINED {
        constexpr bool kFromStart = starts_cells(kFormat) && V::kStartsInSum && p == 0;
        part[r][g] = V::template from<kWide>(kFromStart ? terms[r * call.cells + c].start : 0);
      });
      each_number<kPart>([&]<int i>(Number<i>) {
        constexpr int j = quad_at<kBits, kPart>(p * kPart + i);
        groups.template ask<kGroups, p * kPart + i>(ahead);
        typename V::Codes codes[kGroups];
#pragma GCC unroll 4
        for (int g = 0; g < kGroups; ++g) codes[g] = quad_codes<V, kBits, j>(groups.cell(g, c));
        kEach([&](int r, int g) TUTTI_INLINED {
          const std::int8_t* const four = x + (r * call.cells + c) * kCell + 4 * j;
          part[r][g] = V::template dot<kWide>(part[r][g], codes[g], four);
        });
      });
      constexpr int kLast = quad_at<kBits, kPart>(p * kPart);
      kEach([&](int r, int g) TUTTI_INLINED {
        if constexpr (V::kScalesLast) {
          kept[p][r][g] = part[r][g];
        } else {
          const auto closed = close_part<V, kFormat, kLast>(part[r][g], of[g]);
          whole[r][g] = p == 0 ? closed : V::add(whole[r][g], closed);
        }
      });
    });
    if constexpr (V::kScalesLast) {
      asm volatile("" ::: "memory");  // gcc leaves their loads behind those of codes
      groups.read(c, of);
      each_number<kKept>([&]<int p>(Number<p>) {
        kEach([&](int r, int g) TUTTI_INLINED {
          constexpr int kLast = quad_at<kBits, kPart>(p * kPart);
          const auto closed = close_part<V, kFormat, kLast>(kept[p][r][g], of[g]);
          whole[r][g] = p == 0 ? closed : V::add(whole[r][g], closed);
        });
      });
    }
    kEach([&](int r, int g) TUTTI_INLINED {
      const Index at = (row + r) * call.cells + c;
      sum[r][g] =
          add_cell<V, kFormat>(sum[r][g], whole[r][g], of[g], call.scales[at],
                               kTerms ? terms + r * call.cells + c : nullptr, call.halves + at * 2);
    });
  }
  kEach([&](int r, int g) TUTTI_INLINED { V::store_floats(sum[r][g], place(r, g)); });
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

}  // namespace
}  // namespace tutti::kernels
