// The time of the fastest of loops, for the ceilings; internal.
#pragma once

#include <functional>
#include <optional>
#include <span>

#include "kernels/ceilings/ceilings.h"

namespace tutti::kernels {

// Seconds of the fastest loop of all: in turns for time.seconds, each three times at least, after
// one to warm up; none where time.until came before each of them had run. With one thread the
// calling thread's own time counts, with more the clock's.
std::optional<double> fastest(const ThreadPool& pool, const MeasureTime& time,
                              std::span<const std::function<void()>> loops);

// 1e9 of `amount` a second.
inline Ceiling rate_of(double amount, std::optional<double> seconds) {
  return seconds ? Ceiling(amount / *seconds * 1e-9) : std::nullopt;
}

}  // namespace tutti::kernels
