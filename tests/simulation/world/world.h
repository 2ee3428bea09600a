// Virtual time, one thread: events happen in the order of their time, and one seed decides
// everything.
//
// A run is a pure function of its options. All that happens is folded into a hash, so that two runs
// can be compared to the byte. The first broken invariant stops the run and is kept with its name.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <queue>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/base/clock.h"
#include "protocol/base/rng.h"
#include "tests/simulation/world/mutation.h"

namespace tutti::simulation {

using namespace std::chrono_literals;

// The coordinator's time of day when a run begins.
inline constexpr std::int64_t kEpochMs = 1'700'000'000'000;

class World {
 public:
  explicit World(std::uint64_t seed) : rng_(seed), faults_(~seed) {}

  Instant now() const { return now_; }
  // The coordinator's idea of the time of day: it can be set.
  WallTime wall() const;
  void step_wall(Duration by) { wall_offset_ += by; }

  // Timing and chance of what the cluster does; faults draw from a stream of their own, so that a
  // scenario without one of them stays comparable.
  Rng& rng() { return rng_; }
  Rng& faults() { return faults_; }
  std::uint64_t events() const { return events_; }

  void after(Duration delay, std::function<void()> action);
  // Between `min` and `max`.
  Duration some(Duration min, Duration max);
  // Runs the next event; false: nothing is left, or an invariant is broken.
  bool step();

  void violate(const std::string& invariant, const std::string& what);
  const std::optional<std::string>& violation() const { return violation_; }

  // One thing that happened. With TUTTI_SIM_TRACE it is printed.
  void trace(std::string_view line);
  std::uint64_t trace_hash() const { return trace_; }

  // A path that must be met by some run of the set (coverage.h names them).
  void reached(std::string_view path) { ++reached_[std::string(path)]; }
  const std::map<std::string, std::uint64_t>& reached() const { return reached_; }

  // A rule that the simulated machines break on purpose.
  bool breaks(Mutation mutation) const { return mutation == mutation_; }
  void mutate(Mutation mutation) { mutation_ = mutation; }

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
  Rng faults_;
  Instant now_;
  Duration wall_offset_{0};
  std::uint64_t events_ = 0;
  std::uint64_t scheduled_ = 0;
  std::uint64_t at_once_ = 0;
  std::uint64_t trace_ = 0;
  std::priority_queue<Entry> queue_;
  std::optional<std::string> violation_;
  std::map<std::string, std::uint64_t> reached_;
  Mutation mutation_ = Mutation::none;
};

}  // namespace tutti::simulation
