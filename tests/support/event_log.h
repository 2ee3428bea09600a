// What handlers on other threads saw, for a test to wait for: lines of text, with a deadline.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <vector>

#include "tests/support/patience.h"

namespace tutti::test {

class EventLog {
 public:
  void add(std::string line) {
    const std::lock_guard lock(guard_);
    lines_.push_back(std::move(line));
    changed_.notify_all();
  }

  // Whether `count` lines are there, within ten seconds (patience.h).
  bool wait_for(std::size_t count) {
    std::unique_lock lock(guard_);
    return changed_.wait_for(lock, patient(std::chrono::seconds(10)),
                             [&] { return lines_.size() >= count; });
  }

  std::vector<std::string> lines() const {
    const std::lock_guard lock(guard_);
    return lines_;
  }

 private:
  mutable std::mutex guard_;
  std::condition_variable changed_;
  std::vector<std::string> lines_;
};

}  // namespace tutti::test
