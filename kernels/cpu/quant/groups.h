// Where the groups of a packed image lie.
#pragma once

#include <cstdint>

#include "kernels/cpu/quant/row_codes.h"
#include "kernels/ops/weights/quantised_weight.h"

namespace tutti::kernels {

// Groups that are handed out together: as wide as a panel of the fp32 image.
inline constexpr Index kTaskGroups = kGroupsTogether;
inline constexpr Index kTaskOutputs = kTaskGroups * kGroup;

inline Index groups_of(Index outputs) {
  return (outputs + kTaskOutputs - 1) / kTaskOutputs * kTaskGroups;
}
inline Index cells_of(Index inputs) { return (inputs + kCell - 1) / kCell; }

// Groups lie one after the other; of bf16, four of them side by side for each k, as in the f32
// image.
inline Index group_offset(WeightFormat format, Index cells, Index group) {
  const Index bytes = layout_of(format).group_bytes(cells);
  if (format != WeightFormat::bf16) return group * bytes;
  return group / kTaskGroups * kTaskGroups * bytes + group % kTaskGroups * kGroup * 2;
}

inline const std::uint8_t* group_at(const QuantisedWeight& weight, Index group) {
  return reinterpret_cast<const std::uint8_t*>(weight.image()) +
         group_offset(weight.format(), cells_of(weight.inputs()), group);
}

}  // namespace tutti::kernels
