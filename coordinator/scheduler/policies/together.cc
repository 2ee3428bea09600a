#include "coordinator/scheduler/policies/together.h"

#include <algorithm>
#include <functional>
#include <map>
#include <tuple>
#include <utility>

namespace tutti::coordinator::scheduler {

namespace {

const wire::DeviceReading* reading_of(const std::vector<wire::DeviceReading>& readings,
                                      const std::string& uuid) {
  const auto at = std::find_if(readings.begin(), readings.end(),
                               [&](const auto& each) { return each.uuid == uuid; });
  return at == readings.end() ? nullptr : &*at;
}

// A slot beyond what is known is a group of its own.
std::uint64_t group_of(const SlotGroups& groups, std::uint32_t slot) {
  constexpr std::uint64_t kOwn = std::uint64_t{1} << 32;
  return slot < groups.size() ? groups[slot] : kOwn + slot;
}

std::map<std::uint64_t, std::vector<std::uint32_t>> grouped(const std::vector<std::uint32_t>& slots,
                                                            const SlotGroups& groups) {
  std::map<std::uint64_t, std::vector<std::uint32_t>> out;
  for (const std::uint32_t slot : slots) out[group_of(groups, slot)].push_back(slot);
  return out;
}

}  // namespace

SlotGroups islands_of(const std::vector<wire::DeviceState>& devices,
                      const std::vector<wire::DeviceReading>& readings) {
  SlotGroups islands(devices.size());
  for (std::uint32_t slot = 0; slot < islands.size(); ++slot) islands[slot] = slot;
  bool linked = false;
  for (std::uint32_t slot = 0; slot < devices.size(); ++slot) {
    const wire::DeviceReading* const reading = reading_of(readings, devices[slot].uuid);
    if (reading == nullptr) continue;
    for (const wire::DeviceLink& link : reading->links) {
      const auto peer = std::find_if(devices.begin(), devices.end(),
                                     [&](const auto& device) { return device.uuid == link.uuid; });
      if (link.count == 0 || peer == devices.end()) continue;
      const std::uint32_t one = islands[slot];
      const std::uint32_t other = islands[static_cast<std::size_t>(peer - devices.begin())];
      if (one == other) continue;
      linked = true;
      std::replace(islands.begin(), islands.end(), std::max(one, other), std::min(one, other));
    }
  }
  return linked ? islands : SlotGroups();
}

SlotGroups sockets_of(const std::vector<wire::DeviceState>& devices,
                      const std::vector<wire::DeviceReading>& readings) {
  SlotGroups sockets;
  for (const wire::DeviceState& device : devices) {
    const wire::DeviceReading* const reading = reading_of(readings, device.uuid);
    if (reading == nullptr || reading->socket < 0) return {};
    sockets.push_back(static_cast<std::uint32_t>(reading->socket));
  }
  const bool all_alike =
      std::adjacent_find(sockets.begin(), sockets.end(), std::not_equal_to<>()) == sockets.end();
  return all_alike ? SlotGroups() : sockets;
}

std::vector<std::uint32_t> choose_together(const Together& choice,
                                           std::span<const SlotGroups* const> levels) {
  std::vector<std::uint32_t> out;
  if (levels.empty()) {
    const auto count = std::min<std::size_t>(choice.wanted, choice.slots.size());
    out.assign(choice.slots.begin(), choice.slots.begin() + static_cast<std::ptrdiff_t>(count));
    return out;
  }
  const SlotGroups& groups = *levels.front();
  auto left = grouped(choice.slots, groups);
  std::uint32_t wanted = choice.wanted;
  while (wanted > 0 && !left.empty()) {
    // What is better is less.
    const auto rank = [&](const auto& group) {
      const std::size_t room = group.second.size();
      const auto company =
          std::count_if(choice.beside.begin(), choice.beside.end(),
                        [&](std::uint32_t slot) { return group_of(groups, slot) == group.first; });
      const bool enough = room >= wanted;
      return std::tuple(!enough, -company, enough ? room : choice.slots.size() - room);
    };
    const auto best = std::min_element(
        left.begin(), left.end(), [&](const auto& a, const auto& b) { return rank(a) < rank(b); });
    const auto taken = choose_together({best->second, wanted, choice.beside}, levels.subspan(1));
    out.insert(out.end(), taken.begin(), taken.end());
    wanted -= static_cast<std::uint32_t>(taken.size());
    left.erase(best);
  }
  return out;
}

std::uint32_t most_together(const std::vector<std::uint32_t>& slots, const SlotGroups& groups) {
  std::size_t most = 0;
  for (const auto& [group, members] : grouped(slots, groups)) most = std::max(most, members.size());
  return static_cast<std::uint32_t>(most);
}

}  // namespace tutti::coordinator::scheduler
