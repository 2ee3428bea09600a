#include "coordinator/scheduler/job_queue.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace tutti::coordinator::scheduler {

JobQueue::Turn JobQueue::turn_in(const Lane& lane, std::int64_t submitted_unix_ms,
                                 JobId job) const {
  const auto delay = delays_ms_.find(lane.key.owner);
  return {
      .tier = lane.key.broken    ? 0
              : lane.key.overdue ? 1
                                 : 2,
      // Overdue jobs have waited long enough for their priority and their user not to matter.
      .less_priority = lane.key.overdue ? 0 : -std::int64_t{lane.key.priority},
      .since_unix_ms =
          submitted_unix_ms +
          (lane.key.broken || lane.key.overdue || delay == delays_ms_.end() ? 0 : delay->second),
      .job = job};
}

void JobQueue::set_front(Lane& lane) {
  if (lane.front.job) fronts_.erase(lane.front);
  if (lane.jobs.empty()) {
    lanes_.erase(lanes_.find(lane.key));
    return;
  }
  const auto& [since, job] = *lane.jobs.begin();
  lane.front = turn_in(lane, since, job);
  fronts_.emplace(lane.front, &lane);
}

void JobQueue::put(JobId job, const LaneKey& key, std::int64_t submitted_unix_ms) {
  const auto at = places_.find(job);
  if (at != places_.end()) {
    if (at->second.submitted_unix_ms == submitted_unix_ms && at->second.lane->key == key) return;
    erase(job);
  }
  Lane& lane = lanes_.try_emplace(key).first->second;
  if (lane.jobs.empty()) lane.key = key;
  lane.jobs.emplace(submitted_unix_ms, job);
  places_[job] = {&lane, submitted_unix_ms};
  if (lane.jobs.begin()->second == job) set_front(lane);
}

void JobQueue::erase(JobId job) {
  const auto at = places_.find(job);
  if (at == places_.end()) return;
  const Place place = at->second;
  places_.erase(at);
  const bool first = place.lane->front.job == job;
  place.lane->jobs.erase({place.submitted_unix_ms, job});
  if (first) set_front(*place.lane);
}

void JobQueue::set_delays(std::map<std::string, std::int64_t> delays_ms) {
  if (delays_ms == delays_ms_) return;
  delays_ms_ = std::move(delays_ms);
  fronts_.clear();
  for (auto& [key, lane] : lanes_) {
    lane.front = {};
    set_front(lane);
  }
}

std::optional<JobQueue::Head> JobQueue::first() const { return after(kBeforeAll); }

std::optional<JobQueue::Head> JobQueue::at(std::map<Turn, Lane*>::const_iterator place) const {
  if (place == fronts_.end()) return std::nullopt;
  const auto& [turn, lane] = *place;
  return Head{.turn = turn, .lane = &lane->key, .job = turn.job, .place = place};
}

std::optional<JobQueue::Head> JobQueue::after(const Turn& turn) const {
  return at(fronts_.upper_bound(turn));
}

std::optional<JobQueue::Head> JobQueue::next(const Head& head) const {
  return at(std::next(head.place));
}

std::optional<JobQueue::Head> JobQueue::head_of(JobId job) const {
  const auto found = places_.find(job);
  if (found == places_.end() || found->second.lane->front.job != job) return std::nullopt;
  return at(fronts_.find(found->second.lane->front));
}

std::optional<JobQueue::Turn> JobQueue::turn_of(JobId job) const {
  const auto at = places_.find(job);
  if (at == places_.end()) return std::nullopt;
  return turn_in(*at->second.lane, at->second.submitted_unix_ms, job);
}

JobQueue::Ahead JobQueue::ahead_of(JobId job, std::size_t listed) const {
  Ahead out;
  const std::optional<Turn> own = turn_of(job);
  if (!own) return out;
  struct Next {
    Turn turn;
    const Lane* lane;
    Jobs::const_iterator at;
  };
  const auto later = [](const Next& left, const Next& right) { return left.turn > right.turn; };
  std::vector<Next> nexts;
  for (const auto& [key, lane] : lanes_) {
    if (lane.front >= *own) continue;
    nexts.push_back({lane.front, &lane, lane.jobs.begin()});
    const auto& [since, last] = *lane.jobs.rbegin();
    if (turn_in(lane, since, last) < *own) {
      out.count += lane.jobs.size();
      continue;
    }
    // Between the lane's first and last, so of the same tier and priority.
    const std::int64_t delay = lane.front.since_unix_ms - lane.jobs.begin()->first;
    const auto end = lane.jobs.lower_bound({own->since_unix_ms - delay, job});
    out.count += static_cast<std::size_t>(std::distance(lane.jobs.begin(), end));
  }
  std::make_heap(nexts.begin(), nexts.end(), later);
  while (out.first.size() < std::min(listed, out.count)) {
    std::pop_heap(nexts.begin(), nexts.end(), later);
    Next& next = nexts.back();
    out.first.push_back(next.turn.job);
    if (++next.at == next.lane->jobs.end()) {
      nexts.pop_back();
      continue;
    }
    next.turn = turn_in(*next.lane, next.at->first, next.at->second);
    std::push_heap(nexts.begin(), nexts.end(), later);
  }
  return out;
}

}  // namespace tutti::coordinator::scheduler
