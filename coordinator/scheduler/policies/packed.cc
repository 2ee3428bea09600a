#include <iterator>
#include <string>

#include "coordinator/scheduler/policies/policies.h"

namespace tutti::coordinator::scheduler {

void choose_packed(const Tier& tier, std::uint32_t wanted, std::vector<Share>& out) {
  const auto first_with = [&](std::uint32_t ranks) {
    return tier.by_fit.lower_bound({ranks, std::string()});
  };
  // The largest ones are taken whole, alike ones by name, until another one can take the rest.
  auto end = tier.by_fit.end();
  while (wanted > 0 && end != tier.by_fit.begin()) {
    const std::uint32_t room = std::prev(end)->first;
    const auto begin = first_with(room);
    for (auto at = begin; at != end && wanted > 0; ++at) {
      if (room >= wanted) {
        const auto enough = first_with(wanted);
        out.push_back({enough->first < room ? enough->second : at->second, wanted});
        return;
      }
      out.push_back({at->second, room});
      wanted -= room;
    }
    end = begin;
  }
}

}  // namespace tutti::coordinator::scheduler
