// Deadlines of many things, and which comes first.
//
// Entries may be early: whoever moves a deadline to a later time need not say so. The owner looks
// at the true deadline of what comes up and sets it anew (`first` of ClusterState). So a worker's
// lease costs one step a lease, not one a heartbeat.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <utility>

#include "protocol/base/clock.h"

namespace tutti::coordinator {

template <class Key>
class DueIndex {
 public:
  void set(const Key& key, std::optional<Instant> due) {
    const auto at = due_of_.find(key);
    if (at != due_of_.end()) {
      if (due && at->second == *due) return;
      order_.erase({at->second, key});
      due_of_.erase(at);
    }
    if (!due) return;
    due_of_.emplace(key, *due);
    order_.emplace(*due, key);
  }

  std::optional<std::pair<Instant, Key>> first() const {
    if (order_.empty()) return std::nullopt;
    return *order_.begin();
  }

  // The first one whose true deadline it is, by `truth(key)`; those that were early are set right.
  template <class Truth>
  std::optional<std::pair<Instant, Key>> first(const Truth& truth) {
    while (!order_.empty()) {
      const auto [due, key] = *order_.begin();
      const std::optional<Instant> real = truth(key);
      if (real && *real <= due) return std::pair(due, key);
      set(key, real);
    }
    return std::nullopt;
  }

  std::size_t size() const { return order_.size(); }

 private:
  std::map<Key, Instant> due_of_;
  std::set<std::pair<Instant, Key>> order_;
};

}  // namespace tutti::coordinator
