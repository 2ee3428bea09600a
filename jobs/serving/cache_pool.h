// The caches of keys and values: those in use, and those kept because a prompt may begin alike.
//
// A cache is a function of its tokens, bit for bit, so one that is cut back to the tokens it shares
// with a new prompt is as good as one filled anew: a conversation that goes on pays for what is new
// in it.
//
// Ownership: owns all caches; a lease points to one until it is given back. Threads: one at a time.
// Limits: bytes_max over all caches.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "jobs/models/inference_pass.h"

namespace tutti::serving {

class CachePool {
 public:
  struct Slot {
    Slot(const models::DecoderDescription& description, std::uint32_t capacity,
         kernels::Device* device)
        : cache(description, capacity, device) {}

    models::KvCache cache;
    std::vector<std::int32_t> tokens;  // that the cache holds, while it is not in use
    std::uint64_t last_used = 0;
    bool in_use = false;
  };

  CachePool(const models::DecoderDescription& description, std::uint64_t bytes_max,
            kernels::Device* device = nullptr)
      : description_(description), bytes_max_(bytes_max), device_(device) {}

  // Whether `capacity` tokens fit when nothing else is in use.
  bool ever_fits(std::uint32_t capacity) const;

  // A cache with room for `capacity` tokens. It may hold the first of `prompt` already, but never
  // more than `reused_max`: see its length(). Null: not now.
  Slot* take(std::span<const std::int32_t> prompt, std::uint32_t capacity,
             std::uint32_t reused_max);

  // Ends a lease; `tokens` are those that the cache holds now.
  void give_back(Slot* slot, std::span<const std::int32_t> tokens);

  std::uint64_t bytes() const { return bytes_; }
  // That all caches in use may have together, in one layer.
  std::uint64_t pages_max() const { return bytes_max_ / bytes_of(1); }

 private:
  std::uint64_t bytes_of(std::uint32_t capacity) const {
    return models::KvCache::bytes(description_, capacity);
  }
  Slot* longest_match(std::span<const std::int32_t> prompt, std::uint32_t capacity,
                      std::uint32_t& length);
  Slot* make(std::uint32_t capacity);
  void drop_oldest();

  const models::DecoderDescription& description_;
  std::uint64_t bytes_max_ = 0;
  kernels::Device* device_ = nullptr;  // whose memory the caches are
  std::uint64_t bytes_ = 0;
  std::uint64_t clock_ = 0;  // counts leases
  std::vector<std::unique_ptr<Slot>> slots_;
};

}  // namespace tutti::serving
