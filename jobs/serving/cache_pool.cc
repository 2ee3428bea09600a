#include "jobs/serving/cache_pool.h"

#include <algorithm>

#include "kernels/ops/key_value_pages.h"

namespace tutti::serving {
namespace {

// Fewer tokens than this in common are not worth losing what else the kept cache holds.
constexpr std::uint32_t kReusedMin = 16;

std::uint32_t whole_pages(std::uint32_t capacity) {
  return static_cast<std::uint32_t>(kernels::kv_pages_for(capacity) * kernels::kKeyBlock);
}

}  // namespace

bool CachePool::ever_fits(std::uint32_t capacity) const {
  return bytes_of(whole_pages(capacity)) <= bytes_max_;
}

CachePool::Slot* CachePool::longest_match(std::span<const std::int32_t> prompt,
                                          std::uint32_t capacity, std::uint32_t& length) {
  Slot* best = nullptr;
  for (const auto& slot : slots_) {
    if (slot->in_use || slot->cache.capacity() < capacity) continue;
    const auto differ =
        std::mismatch(prompt.begin(), prompt.end(), slot->tokens.begin(), slot->tokens.end());
    const auto common = static_cast<std::uint32_t>(differ.first - prompt.begin());
    if (common >= kReusedMin && common > length) {
      best = slot.get();
      length = common;
    }
  }
  return best;
}

CachePool::Slot* CachePool::make(std::uint32_t capacity) {
  const std::uint64_t needed = bytes_of(capacity);
  while (bytes_ + needed > bytes_max_) {
    const std::uint64_t before = bytes_;
    drop_oldest();
    if (bytes_ == before) return nullptr;  // all others are in use
  }
  bytes_ += needed;
  slots_.push_back(std::make_unique<Slot>(description_, capacity, device_));
  return slots_.back().get();
}

void CachePool::drop_oldest() {
  auto oldest = slots_.end();
  for (auto slot = slots_.begin(); slot != slots_.end(); ++slot) {
    if ((*slot)->in_use) continue;
    if (oldest == slots_.end() || (*slot)->last_used < (*oldest)->last_used) oldest = slot;
  }
  if (oldest == slots_.end()) return;
  bytes_ -= bytes_of((*oldest)->cache.capacity());
  slots_.erase(oldest);
}

CachePool::Slot* CachePool::take(std::span<const std::int32_t> prompt, std::uint32_t capacity,
                                 std::uint32_t reused_max) {
  std::uint32_t length = 0;
  Slot* slot = longest_match(prompt.first(std::min<std::size_t>(prompt.size(), reused_max)),
                             capacity, length);
  if (slot == nullptr) slot = make(whole_pages(capacity));
  if (slot == nullptr) return nullptr;
  slot->cache.truncate(length);
  slot->in_use = true;
  return slot;
}

void CachePool::give_back(Slot* slot, std::span<const std::int32_t> tokens) {
  TUTTI_ASSERT(slot->in_use && tokens.size() == slot->cache.length());
  slot->tokens.assign(tokens.begin(), tokens.end());
  slot->in_use = false;
  slot->last_used = ++clock_;
}

}  // namespace tutti::serving
