// The kernel of each format for one instruction set: cells with scales, or int8 by rows.
//
// Included by one source per instruction set, which defines V (cell_dot.h) in an unnamed namespace:
// nothing here may be shared between them, as each is compiled for its own machine.
#pragma once

#include "kernels/cpu/quant/dots/cell_dot.h"
#include "kernels/cpu/quant/dots/channel_dot.h"

namespace tutti::kernels {
namespace {

template <class V>
GroupDot dot_of(WeightFormat format) {
  switch (format) {
    case WeightFormat::bf16:
    case WeightFormat::nf4:
    case WeightFormat::fp8_e4m3:
    case WeightFormat::fp8_e5m2:
    case WeightFormat::int4_zero:
    case WeightFormat::int8_zero:
    case WeightFormat::int4_order:
    case WeightFormat::int8_order: return nullptr;
    case WeightFormat::int8_channel: return channel_dot<V>;
    case WeightFormat::int4_group: return group_dot<V, WeightFormat::int4_group>;
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
