// Virtual time, one thread: events happen in the order of their time, and one seed decides
// everything.
//
// A run is a pure function of its Options. The first broken invariant stops it and is kept with its
// name.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <queue>
#include <string>
#include <vector>

#include "protocol/base/clock.h"
#include "protocol/base/rng.h"

namespace tutti::simulation {

using namespace std::chrono_literals;

struct NetworkOptions {
  Duration delay_min = 200us;
  Duration delay_max = 3ms;
  double loss = 0;
  double repeat = 0;    // a frame arrives twice
  double overtake = 0;  // a frame is held back, and later ones pass it
};

class World {
 public:
  explicit World(std::uint64_t seed) : rng_(seed) {}

  Instant now() const { return now_; }
  Rng& rng() { return rng_; }
  std::uint64_t events() const { return events_; }

  void after(Duration delay, std::function<void()> action);
  // Between `min` and `max`.
  Duration some(Duration min, Duration max);
  // Runs the next event; false: nothing is left, or an invariant is broken.
  bool step();

  void violate(const std::string& invariant, const std::string& what);
  const std::optional<std::string>& violation() const { return violation_; }

  // Called before each event, with its number.
  std::function<void(std::uint64_t)> before_event;

 private:
  struct Entry {
    Instant at;
    std::uint64_t number;
    std::function<void()> action;
    bool operator<(const Entry& other) const {
      return at != other.at ? at > other.at : number > other.number;
    }
  };

  Rng rng_;
  Instant now_;
  std::uint64_t events_ = 0;
  std::uint64_t scheduled_ = 0;
  std::priority_queue<Entry> queue_;
  std::optional<std::string> violation_;
};

// One direction of one link: frames are lost, repeated, delayed, overtaken; or the cable is cut.
class Channel {
 public:
  Channel(World& world, const NetworkOptions& options) : world_(world), options_(options) {}

  void send(const std::function<void()>& deliver);
  void cut(bool is_cut) { cut_ = is_cut; }
  void calm() { options_ = {}; }

 private:
  World& world_;
  NetworkOptions options_;
  Instant last_;
  bool cut_ = false;
};

}  // namespace tutti::simulation
