#include "worker/launcher/core_share.h"

#include <algorithm>

namespace tutti::worker {

bool CoreShare::is_free(int core) const {
  return std::none_of(taken_.begin(), taken_.end(), [&](const auto& entry) {
    return std::find(entry.second.begin(), entry.second.end(), core) != entry.second.end();
  });
}

std::string CoreShare::take(ProcessId process, std::uint32_t count) {
  put_back(process);
  std::vector<int> found;
  for (std::size_t i = 0; i < cores_.size() && found.size() < count; ++i) {
    if (is_free(cores_[i])) {
      found.push_back(cores_[i]);
    } else {
      found.clear();
    }
  }
  if (found.size() < count) return {};
  std::string list;
  for (const int core : found) list += (list.empty() ? "" : ",") + std::to_string(core);
  adopt(process, std::move(found));
  return list;
}

void CoreShare::put_back(ProcessId process) { taken_.erase(process); }

const std::vector<int>& CoreShare::of(ProcessId process) const {
  static const std::vector<int> kNone;
  const auto at = taken_.find(process);
  return at == taken_.end() ? kNone : at->second;
}

void CoreShare::adopt(ProcessId process, std::vector<int> cores) {
  if (!cores.empty()) taken_[process] = std::move(cores);
}

}  // namespace tutti::worker
