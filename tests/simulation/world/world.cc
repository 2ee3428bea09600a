#include "tests/simulation/world/world.h"

#include <cstdio>
#include <cstdlib>
#include <utility>

namespace tutti::simulation {

namespace {

constexpr std::uint64_t kEventsAtOnceMax = 100'000;

}  // namespace

WallTime World::wall() const { return WallTime{kEpochMs + to_ms(now_.since_start + wall_offset_)}; }

void World::after(Duration delay, std::function<void()> action) {
  queue_.push({.at = now_ + delay, .number = ++scheduled_, .action = std::move(action)});
}

Duration World::some(Duration min, Duration max) {
  return min + Duration(static_cast<std::int64_t>(
                   rng_.below(static_cast<std::uint64_t>((max - min).count()) + 1)));
}

bool World::step() {
  if (queue_.empty() || violation_) return false;
  // The queue orders by time and number only, so what is moved out of its top stays its top.
  Entry& top = const_cast<Entry&>(queue_.top());
  const std::function<void()> action = std::move(top.action);
  at_once_ = top.at == now_ ? at_once_ + 1 : 0;
  if (at_once_ > kEventsAtOnceMax) violate("I17", "time stands still: something repeats for ever");
  now_ = top.at;
  queue_.pop();
  ++events_;
  if (before_event) before_event(events_);
  action();
  return !violation_;
}

void World::violate(const std::string& invariant, const std::string& what) {
  if (violation_) return;
  violation_ = invariant + " is broken at " + std::to_string(to_ms(now_.since_start)) +
               " ms, event " + std::to_string(events_) + ": " + what;
}

void World::trace(std::string_view line) {
  // FNV-1a over the line and when it was.
  constexpr std::uint64_t kPrime = 1'099'511'628'211ULL;
  const auto fold = [this](std::uint64_t value) { trace_ = (trace_ ^ value) * kPrime; };
  fold(static_cast<std::uint64_t>(now_.since_start.count()));
  fold(events_);
  for (const char each : line) fold(static_cast<unsigned char>(each));
  static const bool kPrinted = std::getenv("TUTTI_SIM_TRACE") != nullptr;
  if (!kPrinted) return;
  std::fprintf(stderr, "%10.3f %7llu  %.*s\n", to_seconds(now_.since_start) * 1000,
               static_cast<unsigned long long>(events_), static_cast<int>(line.size()),
               line.data());
}

}  // namespace tutti::simulation
