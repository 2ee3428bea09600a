// int8 by int8 over all of K, once for all instruction sets: integers only, scaled at the end. V is
// that of cell_dot.h, and this is included as that is.
#pragma once

#include <cstdint>

#include "kernels/cpu/quant/dots/cell_dot.h"

namespace tutti::kernels {
namespace {

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
      const bool next = k + kAheadBytes / 16 >= inputs;
      const std::uint8_t* const first =
          base + kLayout.header + k * 16 + kAheadBytes + (next ? kGroups * step - inputs * 16 : 0);
#pragma GCC unroll 4
      for (int g = 0; g < kGroups; ++g) {
        __builtin_prefetch(first + g * step, 0, V::kAsksInto);
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

}  // namespace
}  // namespace tutti::kernels
