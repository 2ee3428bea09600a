#include "worker/launcher/core_share.h"

#include <algorithm>

namespace tutti::worker {

bool CoreShare::is_free(int cpu) const {
  return std::none_of(taken_.begin(), taken_.end(), [&](const auto& entry) {
    return std::find(entry.second.begin(), entry.second.end(), cpu) != entry.second.end();
  });
}

std::span<const Core> CoreShare::tightest(std::size_t count, Borders borders) const {
  std::span<const Core> best;
  std::size_t end = 0;
  for (std::size_t begin = 0; begin < cores_.size(); begin = std::max(end, begin + 1)) {
    end = begin;
    while (end < cores_.size() && is_free(cores_[end].cpu) &&
           (borders == Borders::none || cores_[end].node == cores_[begin].node)) {
      ++end;
    }
    const std::size_t size = end - begin;
    if (size >= count && (best.empty() || size < best.size())) {
      best = std::span(cores_).subspan(begin, size);
    }
  }
  return best;
}

// Empty: so many are not free.
std::vector<int> CoreShare::place_for(std::size_t count) const {
  std::span<const Core> place = tightest(count, Borders::nodes);
  if (place.empty()) place = tightest(count, Borders::none);
  if (place.empty()) place = cores_;
  std::vector<int> found;
  for (const Core& core : place) {
    if (found.size() < count && is_free(core.cpu)) found.push_back(core.cpu);
  }
  if (found.size() < count) found.clear();
  return found;
}

std::string CoreShare::take(ProcessId process, std::uint32_t count) {
  put_back(process);
  std::vector<int> found = place_for(count);
  std::string list;
  for (const int cpu : found) list += (list.empty() ? "" : ",") + std::to_string(cpu);
  adopt(process, std::move(found));
  return list;
}

void CoreShare::put_back(ProcessId process) { taken_.erase(process); }

std::vector<int> CoreShare::cpus() const {
  std::vector<int> out;
  for (const Core& core : cores_) {
    out.push_back(core.cpu);
    out.insert(out.end(), core.siblings.begin(), core.siblings.end());
  }
  return out;
}

const std::vector<int>& CoreShare::of(ProcessId process) const {
  static const std::vector<int> kNone;
  const auto at = taken_.find(process);
  return at == taken_.end() ? kNone : at->second;
}

void CoreShare::adopt(ProcessId process, std::vector<int> cores) {
  if (!cores.empty()) taken_[process] = std::move(cores);
}

}  // namespace tutti::worker
