// Waits for what another thread of this process brings about.
#pragma once

#include <chrono>
#include <functional>
#include <thread>

#include "protocol/base/clock.h"
#include "tests/support/patience.h"

namespace tutti::test {

// Asks until the answer is yes; whether it was before the deadline.
inline bool becomes(const std::function<bool()>& holds,
                    std::chrono::seconds deadline = std::chrono::seconds(20)) {
  const Instant until = monotonic_now() + patient(deadline);
  while (!holds()) {
    if (monotonic_now() >= until) return false;
    std::this_thread::yield();
  }
  return true;
}

}  // namespace tutti::test
