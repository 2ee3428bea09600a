// Time as a value: state machines are told the time, only hosts ask for it.
//
// Instant counts from an arbitrary start and never goes back (timers, leases); WallTime is UTC
// (records for people).
#pragma once

#include <chrono>
#include <compare>
#include <cstdint>

namespace tutti {

using Duration = std::chrono::nanoseconds;

struct Instant {
  Duration since_start{0};

  auto operator<=>(const Instant&) const = default;
  friend Instant operator+(Instant at, Duration by) { return {at.since_start + by}; }
  friend Duration operator-(Instant later, Instant earlier) {
    return later.since_start - earlier.since_start;
  }
};

struct WallTime {
  std::int64_t unix_ms = 0;

  auto operator<=>(const WallTime&) const = default;
};

// The real clocks. Hosts and tools only; never a state machine.
Instant monotonic_now();
WallTime wall_now();

inline std::int64_t to_ms(Duration duration) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(duration).count();
}
inline double to_seconds(Duration duration) {
  return std::chrono::duration<double>(duration).count();
}

}  // namespace tutti
