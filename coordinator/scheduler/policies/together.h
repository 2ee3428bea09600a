// Which slots of a node a gang takes: those whose devices are joined best.
//
// Slots of one island reach each other by links of their own (NVLink), slots of one socket without
// crossing to the other processor, and of those that do either, some are faster than others
// (link_speeds.h). All of it is wishes: it never makes a difference to how many ranks fit.
//
// Threads: plain functions.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "coordinator/scheduler/policies/link_speeds.h"
#include "protocol/wire/device_state.h"

namespace tutti::coordinator::scheduler {

// Groups of slots, by slot: slots with one number belong together. Empty: nothing is known.
using SlotGroups = std::vector<std::uint32_t>;

// What devices that are joined by links form, directly or through each other; empty: there are no
// links. A device that the driver does not tell of is an island of its own. Links that were
// measured to give less than half of what the best of the node's give, each, join nothing.
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

// What is known of a node's slots; each may be empty.
struct Joins {
  const SlotGroups& islands;
  const SlotGroups& sockets;
  const LinkSpeeds& speeds;
};

// As choose_together by islands and then by sockets. Where speeds are known, an island with room
// for all gives those whose slowest link, also to what the gang has there, is fastest; of islands
// with room the fastest such choice counts, and then the smallest. Of choices that are alike those
// of one socket, and the smallest numbers.
std::vector<std::uint32_t> choose_joined(const Together& choice, const Joins& joins);

// Room in the largest group.
std::uint32_t most_together(const std::vector<std::uint32_t>& slots, const SlotGroups& groups);

}  // namespace tutti::coordinator::scheduler
