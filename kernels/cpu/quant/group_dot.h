// The integer products of cells, once for all instruction sets: V gives sixteen lanes, one output
// each.
//
// V::Codes   64 bytes of codes          V::Ints, V::Floats   sixteen lanes
// V::Sum     four-input products in flight, of codes below 64 or of any (kWide)
//
// Included by one source per instruction set, which defines V in an unnamed namespace: nothing here
// may be shared between them, as each is compiled for its own machine. Loops over rows and groups
// are unrolled, so that sums stay in registers.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/cpu/quant/cells.h"

namespace tutti::kernels {
namespace {

template <int kValue>
using Number = std::integral_constant<int, kValue>;

// visit(Number<j>, codes) for each quad j, in no order that matters.
template <class V, int kBits, class Visit>
inline void each_quad(const std::uint8_t* cell, const Visit& visit) {
  const auto pair = [&]<int j>(Number<j>) {
    if constexpr (kBits == 8) {
      visit(Number<j>{}, V::load(cell + 64 * j));
      visit(Number<j + 4>{}, V::load(cell + 64 * (j + 4)));
    } else {
      const auto both = V::load(cell + 64 * j);
      auto low = V::low(both);
      auto high = V::high(both);
      if constexpr (kBits == 5) {
        const auto fifth = V::load(cell + 256);
        low = V::join(low, V::template field<4 - j, 0x10>(fifth));
        high = V::join(high, V::template field<-j, 0x10>(fifth));
      }
      if constexpr (kBits == 6) {
        low = V::join(low, V::template field<4 - 2 * j, 0x30>(V::load(cell + 256)));
        high = V::join(high, V::template field<4 - 2 * j, 0x30>(V::load(cell + 320)));
      }
      visit(Number<j>{}, low);
      visit(Number<j + 4>{}, high);
    }
  };
  pair(Number<0>{});
  pair(Number<1>{});
  pair(Number<2>{});
  pair(Number<3>{});
}

// What one cell adds to a row's sums, given the integer sums of its two halves.
template <class V, WeightFormat kFormat>
inline typename V::Floats add_cell(typename V::Floats sum, typename V::Ints first,
                                   typename V::Ints second, const std::uint8_t* scales,
                                   const std::uint8_t* super, float x_scale,
                                   const std::int32_t* halves) {
  const auto x = V::splat(x_scale);
  const std::int32_t total = halves[0] + halves[1];
  if constexpr (kFormat == WeightFormat::int4_group) {
    const auto codes = V::to_floats(V::add(first, second));
    sum = V::fma(codes, V::mul(V::halves(scales), x), sum);
    return V::fma(V::to_floats(V::splat_int(total)), V::mul(V::halves(scales + 32), x), sum);
  } else if constexpr (kFormat == WeightFormat::q4_k || kFormat == WeightFormat::q5_k) {
    const auto codes = V::mul_int(V::add(first, second), V::bytes(scales));
    sum = V::fma(V::to_floats(codes), V::mul(V::halves(super), x), sum);
    const auto mins = V::mul_int(V::bytes(scales + 16), V::splat_int(total));
    return V::fnma(V::to_floats(mins), V::mul(V::halves(super + 32), x), sum);
  } else if constexpr (kFormat == WeightFormat::q6_k) {
    first = V::mul_int(V::add(first, V::splat_int(-32 * halves[0])), V::signed_bytes(scales));
    second =
        V::mul_int(V::add(second, V::splat_int(-32 * halves[1])), V::signed_bytes(scales + 16));
    return V::fma(V::to_floats(V::add(first, second)), V::mul(V::halves(super), x), sum);
  } else {
    constexpr int kZero = kFormat == WeightFormat::q8_0   ? 128
                          : kFormat == WeightFormat::q4_0 ? 8
                                                          : 16;
    const auto codes = V::add(V::add(first, second), V::splat_int(-kZero * total));
    return V::fma(V::to_floats(codes), V::mul(V::halves(scales), x), sum);
  }
}

inline constexpr Index kAheadBytes = 2048;

template <class V, WeightFormat kFormat, int kRows>
void run_cells(const GroupCall& call, Index row) {
  constexpr CellLayout kLayout = layout_of(kFormat);
  constexpr bool kWide = kLayout.bits == 8;
  typename V::Floats sum[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) sum[r] = V::load_floats(call.sums + (row + r) * call.sums_stride);
  const std::int8_t* x[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) x[r] = call.x + (row + r) * call.cells * kCell;
  for (Index c = 0; c < call.cells; ++c) {
    const std::uint8_t* const cell = call.group + kLayout.cell_at(c);
    // With several rows the machine looks fewer cells ahead than memory is far away.
    if constexpr (kRows > 1) {
      for (Index line = 0; line < kLayout.cell(); line += 64) {
        __builtin_prefetch(cell + kAheadBytes + line);
      }
    }
    typename V::template Sum<kWide> first[kRows];
    typename V::template Sum<kWide> second[kRows];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) first[r] = V::template none<kWide>();
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) second[r] = V::template none<kWide>();
    each_quad<V, kLayout.bits>(cell, [&]<int j>(Number<j>, typename V::Codes codes) {
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        // Where halves have no scales of their own, the second sum is a second chain in flight.
        const std::int8_t* const four = x[r] + c * kCell + 4 * j;
        if constexpr (j < 4) {
          first[r] = V::template dot<kWide>(first[r], codes, four);
        } else {
          second[r] = V::template dot<kWide>(second[r], codes, four);
        }
      }
    });
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      sum[r] = add_cell<V, kFormat>(
          sum[r], V::template total<kWide>(first[r]), V::template total<kWide>(second[r]),
          cell + kLayout.codes(), call.group + kLayout.super_at(c),
          call.scales[(row + r) * call.cells + c], call.halves + ((row + r) * call.cells + c) * 2);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) V::store_floats(sum[r], call.sums + (row + r) * call.sums_stride);
}

struct Range {
  Index first, count;
};

template <class V>
__attribute__((noinline)) void scale_channel(const GroupCall& call, Range rows, Range groups,
                                             const typename V::Ints* totals) {
  constexpr CellLayout kLayout = layout_of(WeightFormat::int8_channel);
  for (Index r = rows.first; r < rows.first + rows.count; ++r) {
    std::int32_t total = 0;
    for (Index h = 0; h < 2 * call.cells; ++h) total += call.halves[r * 2 * call.cells + h];
    for (Index g = groups.first; g < groups.first + groups.count; ++g) {
      float* const place = call.sums + r * call.sums_stride + g * kGroup;
      const std::uint8_t* const scales = call.group + g * kLayout.group_bytes(call.cells);
      const auto codes = V::add(*totals++, V::splat_int(-128 * total));
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
  const Index step = kLayout.group_bytes(call.cells);
  const std::uint8_t* const base = call.group + group * step;
  typename V::template Sum<true> sum[kRows][kGroups];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int g = 0; g < kGroups; ++g) sum[r][g] = V::template none<true>();
  }
  const Index inputs = call.cells * kCell;
  const std::int8_t* const x = call.x + row * inputs;
  for (Index k = 0; k < inputs; k += 4) {
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

template <class V, WeightFormat kFormat>
void group_dot(const GroupCall& call) {
  Index row = 0;
  for (; row + 4 <= call.rows; row += 4) run_cells<V, kFormat, 4>(call, row);
  switch (call.rows - row) {
    case 3: return run_cells<V, kFormat, 3>(call, row);
    case 2: return run_cells<V, kFormat, 2>(call, row);
    case 1: return run_cells<V, kFormat, 1>(call, row);
    default: return;
  }
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
