#include <algorithm>

#include "coordinator/scheduler/policies/policies.h"

namespace tutti::coordinator::scheduler {

void choose_first_fit(const Tier& tier, std::uint32_t wanted, std::vector<Share>& out) {
  for (const auto& [name, room] : tier.by_name) {
    if (wanted == 0) return;
    const std::uint32_t ranks = std::min(room.second, wanted);
    out.push_back({name, ranks});
    wanted -= ranks;
  }
}

}  // namespace tutti::coordinator::scheduler
