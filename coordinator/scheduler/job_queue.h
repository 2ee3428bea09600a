// Who is next: the order of jobs that wait for room.
//
//   broken gangs first, then overdue jobs, then by priority, then by submission (later by what fair
//   share takes, per user)
//
// A gang that lost ranks goes first for as long as its seats are held (life/broken_gangs.h).
// A job that waited kOverdueAfter in the queue is overdue: of those that are whole nobody but
// older overdue jobs goes before it, whatever their priority. So the oldest eligible job starts
// within a bound (I9). A job that comes back (preempted, drained, a lost node) has its old place:
// its submission counts.
//
// Jobs that only differ in their submission share a lane: if the first of a lane cannot be placed,
// none of the others can, so that a pass looks at lanes, not at jobs.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "coordinator/scheduler/capacity.h"
#include "protocol/base/ids.h"

namespace tutti::coordinator::scheduler {

inline constexpr std::int64_t kOverdueAfterMs = std::int64_t{24} * 60 * 60 * 1000;

// What decides whether a job can be placed, and its rank among others.
struct LaneKey {
  std::string owner;
  bool broken = false;  // a gang that lost ranks, and whose seats are held
  bool overdue = false;
  std::int32_t priority = 0;
  std::uint32_t ranks_min = 1;
  std::uint32_t ranks_max = 1;
  std::uint64_t time_ms = 0;  // its limit; 0: none
  std::string policy;
  Shape shape;

  auto operator<=>(const LaneKey&) const = default;
};

class JobQueue {
 public:
  struct Turn {
    int tier = 2;  // 0: broken gangs, 1: overdue
    std::int64_t less_priority = 0;
    std::int64_t since_unix_ms = 0;  // of the submit, and what fair share adds
    JobId job;

    auto operator<=>(const Turn&) const = default;
  };

  static constexpr Turn kBeforeAll{-1, 0, 0, {}};

  using Jobs = std::set<std::pair<std::int64_t, JobId>>;  // by submission

  struct Lane {
    LaneKey key;
    Jobs jobs;
    Turn front;
  };

  // The first of a lane.
  struct Head {
    Turn turn;
    const LaneKey* lane = nullptr;  // valid until the lane is empty
    JobId job;
    std::map<Turn, Lane*>::const_iterator place;  // for next()
  };

  // Adds the job, or moves it to where it belongs now.
  void put(JobId job, const LaneKey& lane, std::int64_t submitted_unix_ms);
  void erase(JobId job);
  bool contains(JobId job) const { return places_.contains(job); }
  std::size_t size() const { return places_.size(); }
  std::size_t lanes() const { return lanes_.size(); }

  // From now on these users' jobs take their turn so much later.
  void set_delays(std::map<std::string, std::int64_t> delays_ms);

  // The first of the first lane; the first of the next lane whose turn is after the given one.
  std::optional<Head> first() const;
  std::optional<Head> after(const Turn& turn) const;
  // The same as after(head.turn), in one step, as long as no job was put or erased since.
  std::optional<Head> next(const Head& head) const;
  // The job, if it is the first of its lane.
  std::optional<Head> head_of(JobId job) const;

  std::optional<Turn> turn_of(JobId job) const;
  // How many are before the job, and the first `listed` of them.
  struct Ahead {
    std::size_t count = 0;
    std::vector<JobId> first;
  };
  Ahead ahead_of(JobId job, std::size_t listed) const;

 private:
  struct Place {
    Lane* lane = nullptr;
    std::int64_t submitted_unix_ms = 0;
  };

  std::optional<Head> at(std::map<Turn, Lane*>::const_iterator place) const;
  Turn turn_in(const Lane& lane, std::int64_t submitted_unix_ms, JobId job) const;
  void set_front(Lane& lane);

  std::map<LaneKey, Lane> lanes_;
  std::map<Turn, Lane*> fronts_;
  std::unordered_map<JobId, Place> places_;
  std::map<std::string, std::int64_t> delays_ms_;
};

}  // namespace tutti::coordinator::scheduler
