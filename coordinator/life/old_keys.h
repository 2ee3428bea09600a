// Keys of submits whose jobs are forgotten, oldest first, and the newest of each found by its
// words.
//
// There are a hundred thousand of them in a coordinator that has run for a while, more than of all
// else that it remembers: each is one text of its exact size, found by that text's hash. That takes
// a third of what two copies of its record in a deque and a map do.
//
// Ownership: owned by Durable. Threads: one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "coordinator/scheduler/scheduler_records.h"

namespace tutti::coordinator {

class OldKeys {
 public:
  std::size_t size() const { return kept_.size(); }
  bool empty() const { return kept_.empty(); }
  KeyRecord at(std::size_t index) const;  // 0: the oldest
  std::int64_t oldest_unix_ms() const { return kept_.front().unix_ms; }

  void push(const KeyRecord& record);
  void pop_oldest();
  void clear();

  // The newest of these words, if there is one.
  std::optional<KeyRecord> find(std::string_view owner, std::string_view key) const;

 private:
  struct Kept {
    JobId job;
    std::uint64_t spec_hash = 0;
    std::int64_t unix_ms = 0;
    std::uint32_t owner_bytes = 0;  // of the words
    std::string words;              // owner, then key
  };

  std::deque<Kept> kept_;
  std::uint64_t popped_ = 0;  // the oldest one's number: each has that of its turn
  std::unordered_multimap<std::size_t, std::uint64_t> numbers_;  // by the hash of its words
};

}  // namespace tutti::coordinator
