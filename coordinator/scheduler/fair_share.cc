#include "coordinator/scheduler/fair_share.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace tutti::coordinator::scheduler {

namespace {

constexpr std::int64_t kStepsPerHalf = 64;
constexpr std::int64_t kStepMs = kUseHalfLifeMs / kStepsPerHalf;
constexpr std::uint64_t kStepFactor = 4'248'701'965;  // 2^32 * 2^(-1/64)
constexpr std::int64_t kHalvesMax = 63;

std::uint64_t decay(std::uint64_t slot_ms, std::int64_t steps) {
  if (steps / kStepsPerHalf > kHalvesMax) return 0;
  slot_ms >>= steps / kStepsPerHalf;
  for (std::int64_t i = 0; i < steps % kStepsPerHalf; ++i) {
    const std::uint64_t high = (slot_ms >> 32) * kStepFactor;
    const std::uint64_t low = (slot_ms & 0xffffffffU) * kStepFactor;
    slot_ms = high + (low >> 32);
  }
  return slot_ms;
}

// Time steps in which use decays are the same for everybody.
std::int64_t steps_between(std::int64_t from_unix_ms, std::int64_t to_unix_ms) {
  return std::max<std::int64_t>(0, to_unix_ms / kStepMs - from_unix_ms / kStepMs);
}

// What is left of `steps` whole steps in a row, the last of which has decayed once: a geometric
// row, by halves of what one half-life leaves.
std::uint64_t decayed_steps(std::int64_t steps) {
  static const auto left_of = [] {
    std::array<std::uint64_t, kStepsPerHalf + 1> sums = {};
    for (std::size_t i = 1; i < sums.size(); ++i) {
      sums[i] = sums[i - 1] + decay(kStepMs, static_cast<std::int64_t>(i));
    }
    return sums;
  }();
  const std::int64_t halves = std::min(steps / kStepsPerHalf, kHalvesMax);
  const std::int64_t rest = steps % kStepsPerHalf;
  const std::uint64_t for_ever = 2 * left_of.back();
  return left_of[static_cast<std::size_t>(rest)] + decay(for_ever - (for_ever >> halves), rest);
}

}  // namespace

std::uint64_t use_at(const UsageRecord& usage, std::int64_t unix_ms) {
  return decay(usage.slot_ms, steps_between(usage.as_of_unix_ms, unix_ms));
}

void add_use(UsageRecord& usage, std::uint64_t slot_ms, std::int64_t unix_ms) {
  usage.slot_ms = use_at(usage, unix_ms) + slot_ms;
  usage.as_of_unix_ms = std::max(usage.as_of_unix_ms, unix_ms);
}

std::uint64_t use_of_held(std::uint64_t slots, std::int64_t from_unix_ms, std::int64_t to_unix_ms) {
  if (to_unix_ms <= from_unix_ms) return 0;
  const std::int64_t steps = steps_between(from_unix_ms, to_unix_ms);
  const auto span = [](std::int64_t from, std::int64_t to) {
    return static_cast<std::uint64_t>(to - from);
  };
  if (steps == 0) return slots * span(from_unix_ms, to_unix_ms);
  // The step it began in, the whole ones after it, and the last one, which has not decayed.
  const std::int64_t last = to_unix_ms / kStepMs;
  const std::uint64_t first = decay(span(from_unix_ms, (last - steps + 1) * kStepMs), steps);
  return slots * (first + decayed_steps(steps - 1) + span(last * kStepMs, to_unix_ms));
}

std::map<std::string, std::int64_t> fair_delays_ms(const std::map<std::string, UsageRecord>& usage,
                                                   const std::map<std::string, double>& shares,
                                                   std::int64_t unix_ms) {
  const auto share_of = [&](const std::string& owner) {
    const auto at = shares.find(owner);
    return at == shares.end() ? 1.0 : at->second;
  };
  double used = 0;
  double weights = 0;
  std::map<std::string, double> each;
  for (const auto& [owner, record] : usage) {
    const auto use = static_cast<double>(use_at(record, unix_ms));
    if (use <= 0) continue;
    each[owner] = use;
    used += use;
    weights += share_of(owner);
  }
  std::map<std::string, std::int64_t> out;
  for (const auto& [owner, use] : each) {
    // What it had over what was due to it among those who had anything: 1 for exactly its share.
    const double due = used * share_of(owner) / weights;
    out[owner] = static_cast<std::int64_t>(static_cast<double>(kFairDelayMaxMs) *
                                           (1 - std::exp2(-use / due)));
  }
  return out;
}

}  // namespace tutti::coordinator::scheduler
