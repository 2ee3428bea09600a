// Which slots of a node a gang takes: those whose devices are joined best.
//
// Slots of one island reach each other by links of their own (NVLink), slots of one socket without
// crossing to the other processor. Both are wishes: they never make a difference to how many ranks
// fit.
//
// Threads: plain functions.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "protocol/wire/device_state.h"

namespace tutti::coordinator::scheduler {

// Groups of slots, by slot: slots with one number belong together. Empty: nothing is known.
using SlotGroups = std::vector<std::uint32_t>;

// What devices that are joined by links form, directly or through each other; empty: there are no
// links. A device that the driver does not tell of is an island of its own.
SlotGroups islands_of(const std::vector<wire::DeviceState>& devices,
                      const std::vector<wire::DeviceReading>& readings);
// Empty: not told, or all are on one.
SlotGroups sockets_of(const std::vector<wire::DeviceState>& devices,
                      const std::vector<wire::DeviceReading>& readings);

struct Together {
  std::vector<std::uint32_t> slots;            // to choose from, ascending
  std::uint32_t wanted = 0;                    // at most so many
  std::span<const std::uint32_t> beside = {};  // what the gang has on the node already
};

// In few groups of the first level, within each of these in few of the next, and so on: where one
// group has room for all, the one that the gang is in already, else the smallest; where none has,
// the largest ones first. Ascending within the last level.
std::vector<std::uint32_t> choose_together(const Together& choice,
                                           std::span<const SlotGroups* const> levels);

// Room in the largest group.
std::uint32_t most_together(const std::vector<std::uint32_t>& slots, const SlotGroups& groups);

}  // namespace tutti::coordinator::scheduler
