#include <iterator>
#include <string>

#include "coordinator/scheduler/policies/policies.h"

namespace tutti::coordinator::scheduler {

void choose_spread(const Tier& tier, std::uint32_t wanted, std::vector<Share>& out) {
  struct Place {
    std::uint32_t room;
    std::size_t share;
  };
  std::vector<Place> places;
  // The emptiest first, alike ones by name.
  for (auto end = tier.by_fit.end(); end != tier.by_fit.begin() && places.size() < wanted;) {
    const auto begin = tier.by_fit.lower_bound({std::prev(end)->first, std::string()});
    for (auto at = begin; at != end && places.size() < wanted; ++at) {
      places.push_back({at->first, out.size()});
      out.push_back({at->second, 0});
    }
    end = begin;
  }
  for (std::uint32_t given = 0; given < wanted;) {
    const std::uint32_t before = given;
    for (const Place& place : places) {
      if (given == wanted || out[place.share].ranks == place.room) continue;
      ++out[place.share].ranks;
      ++given;
    }
    if (given == before) return;
  }
}

}  // namespace tutti::coordinator::scheduler
