#include "tests/simulation/world.h"

#include <algorithm>
#include <utility>

namespace tutti::simulation {

void World::after(Duration delay, std::function<void()> action) {
  queue_.push({.at = now_ + delay, .number = ++scheduled_, .action = std::move(action)});
}

Duration World::some(Duration min, Duration max) {
  return min + Duration(static_cast<std::int64_t>(
                   rng_.below(static_cast<std::uint64_t>((max - min).count()) + 1)));
}

bool World::step() {
  if (queue_.empty() || violation_) return false;
  const Entry entry = queue_.top();
  queue_.pop();
  now_ = entry.at;
  ++events_;
  if (before_event) before_event(events_);
  entry.action();
  return !violation_;
}

void World::violate(const std::string& invariant, const std::string& what) {
  if (violation_) return;
  violation_ = invariant + " is broken at " + std::to_string(to_ms(now_.since_start)) +
               " ms, event " + std::to_string(events_) + ": " + what;
}

void Channel::send(const std::function<void()>& deliver) {
  if (cut_ || world_.rng().chance(options_.loss)) return;
  const int copies = world_.rng().chance(options_.repeat) ? 2 : 1;
  for (int i = 0; i < copies; ++i) {
    const bool held_back = world_.rng().chance(options_.overtake);
    Duration delay = world_.some(options_.delay_min, options_.delay_max);
    if (held_back) {
      delay += world_.some(0ms, 300ms);
    } else {
      // In order with all that was not held back.
      const Instant at = std::max(world_.now() + delay, last_);
      last_ = at;
      delay = at - world_.now();
    }
    world_.after(delay, [this, deliver] {
      if (!cut_) deliver();
    });
  }
}

}  // namespace tutti::simulation
