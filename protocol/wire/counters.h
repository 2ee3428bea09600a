// How many frames of a link were taken and how many were refused, by cause; shown as metrics.
//
// Threads: any (relaxed counters). Owned by the endpoint's or link's host.
#pragma once

#include <atomic>
#include <cstdint>

namespace tutti::wire {

struct FrameCounters {
  std::atomic<std::uint64_t> taken{0};
  std::atomic<std::uint64_t> truncated{0};  // shorter than its header or than the length it states
  std::atomic<std::uint64_t> oversized{0};  // longer than kFrameBytesMax, or states such a length
  std::atomic<std::uint64_t> bad_magic{0};  // noise
  std::atomic<std::uint64_t> bad_version{0};
  std::atomic<std::uint64_t> unknown_kind{0};   // not of this link
  std::atomic<std::uint64_t> bad_body{0};       // the body does not decode
  std::atomic<std::uint64_t> stale_session{0};  // counted by the owner of sessions

  std::uint64_t refused() const {
    return truncated + oversized + bad_magic + bad_version + unknown_kind + bad_body +
           stale_session;
  }
};

}  // namespace tutti::wire
