// How fast the devices of a node reach each other, by pairs of slots: as measured, where all pairs
// were; else as many links as join them, where any do.
//
// Speeds that are nearly alike are one class, so that a measure's noise decides nothing.
//
// Threads: plain functions. Limits: kSlotsWithSpeeds.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "protocol/wire/device_state.h"

namespace tutti::coordinator::scheduler {

// A machine has 16 at most today; beyond this many, nothing is known of pairs.
inline constexpr std::uint32_t kSlotsWithSpeeds = 64;
// Of a faster one, what still counts as alike: as `tutti check --gpu` compares.
inline constexpr std::uint32_t kAlikePercent = 85;

struct LinkSpeeds {
  std::uint32_t slots = 0;
  bool measured = false;                    // in MB/s; else in links
  std::vector<std::uint32_t> speeds = {};   // of slots x slots, the slower direction of each pair
  std::vector<std::uint32_t> classes = {};  // the same: 0 the fastest; of a slot and itself 0
  std::uint32_t slowest = 0;                // class

  bool operator==(const LinkSpeeds&) const = default;
  bool empty() const { return slots == 0; }
  std::uint32_t class_of(std::uint32_t one, std::uint32_t other) const {
    return classes[std::size_t{one} * slots + other];
  }
};

// Empty: nothing is known.
LinkSpeeds speeds_of(const std::vector<wire::DeviceState>& devices,
                     const std::vector<wire::DeviceReading>& readings);

// MB/s of the slowest pair of these slots; 0: not measured, or fewer than two.
std::uint32_t slowest_link(const LinkSpeeds& speeds, std::span<const std::uint32_t> slots);

// Whether the one, the faster or not, counts as alike with the best.
bool is_alike(std::uint64_t speed, std::uint64_t best);

}  // namespace tutti::coordinator::scheduler
