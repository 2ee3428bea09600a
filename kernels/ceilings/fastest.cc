#include "kernels/ceilings/fastest.h"

#include <algorithm>
#include <ctime>
#include <limits>

namespace tutti::kernels {

namespace {

constexpr int kRoundsMin = 3;

double seconds_of(const ThreadPool& pool) {
  timespec time = {};
  clock_gettime(pool.threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

}  // namespace

std::optional<double> fastest(const ThreadPool& pool, const MeasureTime& time,
                              std::span<const std::function<void()>> loops) {
  if (monotonic_now() >= time.until) return std::nullopt;
  loops.front()();
  double least = std::numeric_limits<double>::infinity();
  const Instant end = monotonic_now() + time.seconds;
  for (int round = 0; round < kRoundsMin || monotonic_now() < end; ++round) {
    for (const auto& loop : loops) {
      if (monotonic_now() >= time.until) return round > 0 ? std::optional(least) : std::nullopt;
      const double begin = seconds_of(pool);
      loop();
      least = std::min(least, seconds_of(pool) - begin);
    }
  }
  return least;
}

}  // namespace tutti::kernels
