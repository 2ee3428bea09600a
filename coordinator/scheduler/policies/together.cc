#include "coordinator/scheduler/policies/together.h"

#include <algorithm>
#include <array>
#include <bit>
#include <functional>
#include <map>
#include <optional>
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

// Of the links from one device to another, what each gives, as far as it was measured.
double each_gives(const wire::DeviceLink& link) {
  return link.count == 0 ? 0 : static_cast<double>(link.mb_per_s) / link.count;
}

double best_link(const std::vector<wire::DeviceReading>& readings) {
  double best = 0;
  for (const wire::DeviceReading& reading : readings) {
    for (const wire::DeviceLink& link : reading.links) best = std::max(best, each_gives(link));
  }
  return best;
}

}  // namespace

SlotGroups islands_of(const std::vector<wire::DeviceState>& devices,
                      const std::vector<wire::DeviceReading>& readings) {
  SlotGroups islands(devices.size());
  for (std::uint32_t slot = 0; slot < islands.size(); ++slot) islands[slot] = slot;
  bool linked = false;
  const double best = best_link(readings);
  for (std::uint32_t slot = 0; slot < devices.size(); ++slot) {
    const wire::DeviceReading* const reading = reading_of(readings, devices[slot].uuid);
    if (reading == nullptr) continue;
    for (const wire::DeviceLink& link : reading->links) {
      const auto peer = std::find_if(devices.begin(), devices.end(),
                                     [&](const auto& device) { return device.uuid == link.uuid; });
      if (link.count == 0 || peer == devices.end()) continue;
      if (link.mb_per_s != 0 && each_gives(link) < best / 2) continue;
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

namespace {

// Sets of slots that reach each other by links of one class or better.
class FastestChoice {
 public:
  FastestChoice(const Together& choice, const Joins& joins) : choice_(choice), joins_(joins) {}

  // Of groups of slots, each with room for all that are wanted, the first ones preferred.
  std::vector<std::uint32_t> among(const std::vector<std::vector<std::uint32_t>>& groups) {
    for (worst_ = 0; worst_ <= joins_.speeds.slowest; ++worst_) {
      for (const std::vector<std::uint32_t>& group : groups) {
        if (auto found = within(group)) return *std::move(found);
      }
    }
    return {};
  }

 private:
  using Mask = std::uint64_t;
  static_assert(kSlotsWithSpeeds <= 64);
  // Links of a real machine make sets that are found at once; strange ones are not looked for long.
  static constexpr int kStepsMax = 4'096;

  static Mask bit(std::uint32_t slot) { return Mask{1} << slot; }
  bool reaches(std::uint32_t one, std::uint32_t other) const {
    return joins_.speeds.class_of(one, other) <= worst_;
  }

  std::optional<std::vector<std::uint32_t>> within(const std::vector<std::uint32_t>& group) {
    Mask open = 0;
    for (const std::uint32_t slot : group) {
      const bool suits = std::ranges::all_of(choice_.beside, [&](std::uint32_t held) {
        return held >= joins_.speeds.slots || reaches(slot, held);
      });
      if (suits) open |= bit(slot);
    }
    std::vector<Mask> components;
    for (Mask left = open; left != 0; left &= ~components.back()) {
      components.push_back(component(left & ~(left - 1), open));
    }
    std::ranges::stable_sort(components, {}, [](Mask mask) { return std::popcount(mask); });
    for (const Mask one : components) {
      if (auto found = of_component(one)) return found;
    }
    return std::nullopt;
  }

  Mask component(Mask from, Mask open) const {
    Mask reached = from;
    for (Mask next = from; next != 0; next &= next - 1) {
      const auto slot = static_cast<std::uint32_t>(std::countr_zero(next));
      const Mask more = neighbours(slot) & open & ~reached;
      reached |= more;
      next |= more;
    }
    return reached;
  }

  Mask neighbours(std::uint32_t slot) const {
    Mask out = 0;
    for (std::uint32_t other = 0; other < joins_.speeds.slots; ++other) {
      if (other != slot && reaches(slot, other)) out |= bit(other);
    }
    return out;
  }

  std::optional<std::vector<std::uint32_t>> of_component(Mask component) {
    if (static_cast<std::uint32_t>(std::popcount(component)) < choice_.wanted) return std::nullopt;
    std::vector<std::uint32_t> slots;
    for (Mask left = component; left != 0; left &= left - 1)
      slots.push_back(static_cast<std::uint32_t>(std::countr_zero(left)));
    if (!joins_.sockets.empty()) {
      const SlotGroups* const level[] = {&joins_.sockets};
      auto near = choose_together({slots, choice_.wanted, choice_.beside}, level);
      if (all_reach(near)) return near;
    }
    std::vector<std::uint32_t> out;
    int steps = kStepsMax;
    if (grow(component, out, steps)) return out;
    return std::nullopt;
  }

  bool all_reach(const std::vector<std::uint32_t>& slots) const {
    return std::ranges::all_of(slots, [&](std::uint32_t one) {
      return std::ranges::all_of(slots, [&](std::uint32_t other) { return reaches(one, other); });
    });
  }

  // Adds slots of `open`, which all reach those in `out`, the smallest first.
  bool grow(Mask open, std::vector<std::uint32_t>& out, int& steps) const {
    if (out.size() == choice_.wanted) return true;
    while (out.size() + static_cast<std::size_t>(std::popcount(open)) >= choice_.wanted) {
      if (steps-- <= 0) return false;
      const auto slot = static_cast<std::uint32_t>(std::countr_zero(open));
      open &= open - 1;
      out.push_back(slot);
      if (grow(open & neighbours(slot), out, steps)) return true;
      out.pop_back();
    }
    return false;
  }

  const Together& choice_;
  const Joins& joins_;
  std::uint32_t worst_ = 0;  // class
};

}  // namespace

std::vector<std::uint32_t> choose_joined(const Together& choice, const Joins& joins) {
  std::vector<const SlotGroups*> levels;
  for (const SlotGroups* const groups : {&joins.islands, &joins.sockets}) {
    if (!groups->empty()) levels.push_back(groups);
  }
  const bool all_known = std::ranges::all_of(
      choice.slots, [&](std::uint32_t slot) { return slot < joins.speeds.slots; });
  if (joins.speeds.empty() || !all_known || choice.wanted == 0)
    return choose_together(choice, levels);
  std::vector<std::vector<std::uint32_t>> roomy;
  for (auto& [group, members] :
       grouped(choice.slots,
               joins.islands.empty() ? SlotGroups(joins.speeds.slots, 0) : joins.islands)) {
    if (members.size() >= choice.wanted) roomy.push_back(members);
  }
  if (roomy.empty()) return choose_together(choice, levels);
  const auto company = [&](const std::vector<std::uint32_t>& members) {
    if (joins.islands.empty()) return std::ptrdiff_t{0};
    return std::ranges::count_if(choice.beside, [&](std::uint32_t slot) {
      return group_of(joins.islands, slot) == group_of(joins.islands, members.front());
    });
  };
  std::ranges::stable_sort(
      roomy, {}, [&](const auto& members) { return std::pair(-company(members), members.size()); });
  return FastestChoice(choice, joins).among(roomy);
}

std::uint32_t most_together(const std::vector<std::uint32_t>& slots, const SlotGroups& groups) {
  std::size_t most = 0;
  for (const auto& [group, members] : grouped(slots, groups)) most = std::max(most, members.size());
  return static_cast<std::uint32_t>(most);
}

}  // namespace tutti::coordinator::scheduler
