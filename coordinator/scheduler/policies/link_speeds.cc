#include "coordinator/scheduler/policies/link_speeds.h"

#include <algorithm>
#include <functional>
#include <map>
#include <string_view>
#include <utility>

namespace tutti::coordinator::scheduler {

namespace {

// Told by one end of a pair or by both: the slower direction counts.
struct Pairs {
  std::uint32_t slots = 0;
  std::vector<std::uint32_t> counts = std::vector<std::uint32_t>(std::size_t{slots} * slots);
  std::vector<std::uint32_t> rates = counts;

  void add(std::uint32_t from, std::uint32_t to, const wire::DeviceLink& link) {
    for (const std::size_t at : {std::size_t{from} * slots + to, std::size_t{to} * slots + from}) {
      counts[at] = std::max(counts[at], link.count);
      if (link.mb_per_s == 0) continue;
      rates[at] = rates[at] == 0 ? link.mb_per_s : std::min(rates[at], link.mb_per_s);
    }
  }
  bool all_measured() const {
    for (std::uint32_t one = 0; one < slots; ++one) {
      for (std::uint32_t other = 0; other < one; ++other) {
        if (rates[std::size_t{one} * slots + other] == 0) return false;
      }
    }
    return true;
  }
};

// Each class begins with the fastest that is not alike with the one before.
void classify(LinkSpeeds& out) {
  std::vector<std::uint32_t> begins;
  for (std::uint32_t one = 0; one < out.slots; ++one) {
    for (std::uint32_t other = 0; other < one; ++other)
      begins.push_back(out.speeds[std::size_t{one} * out.slots + other]);
  }
  std::sort(begins.begin(), begins.end(), std::greater<>());
  std::size_t kept = 0;
  for (const std::uint32_t speed : begins) {
    if (kept == 0 || !is_alike(speed, begins[kept - 1])) begins[kept++] = speed;
  }
  begins.resize(kept);
  out.slowest = static_cast<std::uint32_t>(kept - 1);
  out.classes.assign(out.speeds.size(), 0);
  for (std::uint32_t one = 0; one < out.slots; ++one) {
    for (std::uint32_t other = 0; other < out.slots; ++other) {
      if (one == other) continue;
      const std::size_t at = std::size_t{one} * out.slots + other;
      // The last class that begins at this speed or above.
      const auto past =
          std::upper_bound(begins.begin(), begins.end(), out.speeds[at],
                           [](std::uint32_t speed, std::uint32_t begin) { return begin < speed; });
      out.classes[at] = static_cast<std::uint32_t>(past - begins.begin() - 1);
    }
  }
}

}  // namespace

bool is_alike(std::uint64_t speed, std::uint64_t best) {
  return speed * 100 >= best * kAlikePercent;
}

LinkSpeeds speeds_of(const std::vector<wire::DeviceState>& devices,
                     const std::vector<wire::DeviceReading>& readings) {
  if (devices.size() < 2 || devices.size() > kSlotsWithSpeeds || readings.empty()) return {};
  std::map<std::string_view, std::uint32_t> slot_of;
  for (const wire::DeviceState& device : devices)
    slot_of.emplace(device.uuid, static_cast<std::uint32_t>(slot_of.size()));
  if (slot_of.size() != devices.size()) return {};
  Pairs pairs{.slots = static_cast<std::uint32_t>(devices.size())};
  for (const wire::DeviceReading& reading : readings) {
    const auto from = slot_of.find(reading.uuid);
    if (from == slot_of.end()) continue;
    for (const wire::DeviceLink& link : reading.links) {
      const auto to = slot_of.find(link.uuid);
      if (to != slot_of.end() && to != from) pairs.add(from->second, to->second, link);
    }
  }
  LinkSpeeds out;
  out.slots = static_cast<std::uint32_t>(devices.size());
  out.measured = pairs.all_measured();
  out.speeds = out.measured ? std::move(pairs.rates) : std::move(pairs.counts);
  const bool any =
      std::any_of(out.speeds.begin(), out.speeds.end(), [](auto one) { return one > 0; });
  if (!any) return {};
  classify(out);
  return out;
}

std::uint32_t slowest_link(const LinkSpeeds& speeds, std::span<const std::uint32_t> slots) {
  if (!speeds.measured) return 0;
  std::uint32_t slowest = 0;
  for (std::size_t i = 0; i < slots.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (slots[i] >= speeds.slots || slots[j] >= speeds.slots) return 0;
      const std::uint32_t speed = speeds.speeds[std::size_t{slots[i]} * speeds.slots + slots[j]];
      if (slowest == 0 || speed < slowest) slowest = speed;
    }
  }
  return slowest;
}

}  // namespace tutti::coordinator::scheduler
