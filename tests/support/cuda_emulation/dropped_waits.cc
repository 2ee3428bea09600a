#include "tests/support/cuda_emulation/dropped_waits.h"

#include <map>
#include <mutex>
#include <utility>

namespace tutti::emulation {

std::atomic<bool> watching_waits{false};

namespace {

std::mutex mutex;
WaitName dropped_name;
// A place is asked for by every thread of every block: its name is made once.
std::map<std::pair<const char*, int>, bool> kept_at;

WaitName name_of(const char* file, int line) {
  const std::string path(file);
  return path.substr(path.rfind('/') + 1) + ":" + std::to_string(line);
}

}  // namespace

void watch_waits(const WaitName& dropped) {
  const std::lock_guard lock(mutex);
  dropped_name = dropped;
  kept_at.clear();
  watching_waits = true;
}

std::set<WaitName> end_watching() {
  const std::lock_guard lock(mutex);
  watching_waits = false;
  std::set<WaitName> met;
  for (const auto& [place, kept] : kept_at) met.insert(name_of(place.first, place.second));
  return met;
}

bool is_kept_while_watched(const WaitPlace& place) {
  const std::lock_guard lock(mutex);
  const auto [at, is_new] = kept_at.try_emplace({place.file, place.line}, true);
  if (is_new) at->second = name_of(place.file, place.line) != dropped_name;
  return at->second;
}

}  // namespace tutti::emulation
