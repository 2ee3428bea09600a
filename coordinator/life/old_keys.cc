#include "coordinator/life/old_keys.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "protocol/base/assert.h"

namespace tutti::coordinator {

namespace {

std::size_t hash_of(std::string_view words) { return std::hash<std::string_view>{}(words); }

}  // namespace

KeyRecord OldKeys::at(std::size_t index) const {
  const Kept& kept = kept_.at(index);
  return {.key = kept.words.substr(kept.owner_bytes),
          .job = kept.job,
          .spec_hash = kept.spec_hash,
          .unix_ms = kept.unix_ms,
          .owner = kept.words.substr(0, kept.owner_bytes)};
}

void OldKeys::push(const KeyRecord& record) {
  std::string words = record.owner + record.key;
  numbers_.emplace(hash_of(words), popped_ + kept_.size());
  kept_.push_back({.job = record.job,
                   .spec_hash = record.spec_hash,
                   .unix_ms = record.unix_ms,
                   .owner_bytes = static_cast<std::uint32_t>(record.owner.size()),
                   .words = std::move(words)});
}

void OldKeys::pop_oldest() {
  const auto [first, last] = numbers_.equal_range(hash_of(kept_.front().words));
  const auto own =
      std::find_if(first, last, [&](const auto& entry) { return entry.second == popped_; });
  TUTTI_ASSERT(own != last);
  numbers_.erase(own);
  kept_.pop_front();
  ++popped_;
}

void OldKeys::clear() {
  kept_.clear();
  numbers_.clear();
  popped_ = 0;
}

std::optional<KeyRecord> OldKeys::find(std::string_view owner, std::string_view key) const {
  const std::string words = std::string(owner).append(key);
  const auto [first, last] = numbers_.equal_range(hash_of(words));
  std::optional<std::uint64_t> newest;
  for (auto at = first; at != last; ++at) {
    const Kept& kept = kept_[at->second - popped_];
    const bool same = kept.owner_bytes == owner.size() && kept.words == words;
    if (same && (!newest || at->second > *newest)) newest = at->second;
  }
  if (!newest) return std::nullopt;
  return this->at(*newest - popped_);
}

}  // namespace tutti::coordinator
