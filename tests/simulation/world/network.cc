#include "tests/simulation/world/network.h"

#include <algorithm>

namespace tutti::simulation {

void Network::calm() {
  options_ = {};
  congestion_ = {};
  observers_.clear();
}

void Channel::send(std::string_view message, const std::function<void()>& deliver) {
  World& world = network_.world_;
  const NetworkOptions& options = network_.options_;
  if (cut_) return;
  Duration hold{0};
  for (const Observer& observer : network_.observers_) {
    const FrameFate fate =
        observer({.worker = worker_, .direction = direction_, .message = message});
    if (fate.what == FrameFate::What::drop) return world.reached("an observer dropped a frame");
    if (fate.what == FrameFate::What::hold) {
      hold = fate.hold;
      world.reached("an observer held a frame back");
      break;
    }
  }
  if (world.rng().chance(options.loss)) return world.reached("a frame was lost");
  const int copies = world.rng().chance(options.repeat) ? 2 : 1;
  for (int i = 0; i < copies; ++i) {
    const bool held_back = hold > 0ms || world.rng().chance(options.overtake);
    Duration delay = world.some(options.delay_min, options.delay_max) + network_.congestion_ + hold;
    if (held_back) {
      delay += world.some(0ms, 300ms);
      world.reached("a frame was overtaken");
    } else {
      // In order with all that was not held back.
      const Instant at = std::max(world.now() + delay, last_);
      last_ = at;
      delay = at - world.now();
    }
    world.after(delay, [this, deliver, i] {
      if (cut_) return;
      if (i != 0) network_.world_.reached("a frame arrived twice");
      deliver();
    });
  }
}

}  // namespace tutti::simulation
