#include <catch2/catch.hpp>

#include <algorithm>

#include "coordinator/scheduler/job_queue.h"
#include "protocol/base/rng.h"

namespace tutti::coordinator::scheduler {
namespace {

LaneKey lane(std::int32_t priority, const std::string& owner = "u", std::uint32_t ranks = 1) {
  LaneKey out;
  out.owner = owner;
  out.priority = priority;
  out.ranks_min = out.ranks_max = ranks;
  return out;
}

// Every job in its order, one lane's first after the other.
std::vector<std::uint64_t> drained(JobQueue queue) {
  std::vector<std::uint64_t> out;
  while (const auto head = queue.first()) {
    out.push_back(head->job.value);
    queue.erase(head->job);
  }
  return out;
}

TEST_CASE("queue: by priority, then by submission; who waited too long goes first") {
  JobQueue queue;
  queue.put(JobId{1}, lane(0), 10);
  queue.put(JobId{2}, lane(5), 30);
  queue.put(JobId{3}, lane(5), 20);
  LaneKey overdue = lane(-7);
  overdue.overdue = true;
  queue.put(JobId{4}, overdue, 40);
  CHECK(queue.first()->job == JobId{4});
  CHECK(queue.ahead_of(JobId{1}, 2).count == 3);
  CHECK(queue.ahead_of(JobId{1}, 2).first == std::vector<JobId>{JobId{4}, JobId{3}});
  queue.erase(JobId{4});
  CHECK(queue.first()->job == JobId{3});
  queue.put(JobId{1}, lane(9), 10);
  CHECK(queue.first()->job == JobId{1});
}

TEST_CASE("queue: a user who had more waits longer, but not behind a lower priority") {
  JobQueue queue;
  queue.put(JobId{1}, lane(0, "greedy"), 10);
  queue.put(JobId{2}, lane(0, "modest"), 500);
  queue.put(JobId{3}, lane(-1, "modest"), 5);
  queue.set_delays({{"greedy", 1'000}});
  CHECK(queue.first()->job == JobId{2});
  queue.erase(JobId{2});
  CHECK(queue.first()->job == JobId{1});
}

TEST_CASE("queue: who is before a job, counted and the first of them, is what the turns say") {
  Rng rng(11);
  JobQueue queue;
  const std::vector<std::string> owners = {"greedy", "modest", "new"};
  for (std::uint64_t i = 1; i <= 300; ++i) {
    LaneKey key = lane(static_cast<std::int32_t>(rng.below(3)), owners[rng.below(3)],
                       1 + static_cast<std::uint32_t>(rng.below(2)));
    key.overdue = rng.chance(0.1);
    queue.put(JobId{i}, key, static_cast<std::int64_t>(rng.below(50)));
  }
  queue.set_delays({{"greedy", 20}, {"modest", 3}});
  std::vector<std::pair<JobQueue::Turn, JobId>> turns;
  for (std::uint64_t i = 1; i <= 300; ++i) turns.emplace_back(*queue.turn_of(JobId{i}), JobId{i});
  std::sort(turns.begin(), turns.end());
  for (std::size_t before = 0; before < turns.size(); ++before) {
    const auto ahead = queue.ahead_of(turns[before].second, 17);
    CHECK(ahead.count == before);
    REQUIRE(ahead.first.size() == std::min<std::size_t>(17, before));
    for (std::size_t i = 0; i < ahead.first.size(); ++i) CHECK(ahead.first[i] == turns[i].second);
  }
  CHECK(queue.ahead_of(JobId{301}, 17).count == 0);
}

TEST_CASE("queue: a pass that goes from lane to lane meets the first of each, in order") {
  JobQueue queue;
  for (std::uint64_t i = 1; i <= 100; ++i) {
    queue.put(JobId{i}, lane(0, "u", 1 + static_cast<std::uint32_t>(i % 3)),
              static_cast<std::int64_t>(i));
  }
  std::vector<std::uint64_t> met;
  JobQueue::Turn last{-1, 0, 0, {}};
  while (const auto head = queue.after(last)) {
    met.push_back(head->job.value);
    last = head->turn;
  }
  CHECK(met == std::vector<std::uint64_t>{1, 2, 3});
  CHECK(queue.lanes() == 3);
}

TEST_CASE("queue: ten thousand random changes leave the order of a plain sort") {
  Rng rng(11);
  JobQueue queue;
  std::map<std::uint64_t, std::pair<LaneKey, std::int64_t>> jobs;
  std::map<std::string, std::int64_t> delays;
  for (int round = 0; round < 10'000; ++round) {
    const std::uint64_t id = 1 + rng.below(60);
    if (rng.chance(0.3)) {
      queue.erase(JobId{id});
      jobs.erase(id);
      continue;
    }
    LaneKey key = lane(static_cast<std::int32_t>(rng.below(3)), rng.chance(0.5) ? "a" : "b",
                       1 + static_cast<std::uint32_t>(rng.below(3)));
    key.overdue = rng.chance(0.1);
    const auto since = static_cast<std::int64_t>(rng.below(50));
    queue.put(JobId{id}, key, since);
    jobs[id] = {key, since};
    if (rng.chance(0.01)) {
      delays = {{"a", static_cast<std::int64_t>(rng.below(40))}};
      queue.set_delays(delays);
    }
  }
  std::vector<std::uint64_t> sorted;
  for (const auto& [id, job] : jobs) sorted.push_back(id);
  const auto key = [&](std::uint64_t id) {
    const auto& [its, since] = jobs[id];
    return std::tuple(its.overdue ? 0 : 1, its.overdue ? 0 : -its.priority,
                      since + (its.overdue ? 0 : delays[its.owner]), id);
  };
  std::sort(sorted.begin(), sorted.end(), [&](auto a, auto b) { return key(a) < key(b); });
  CHECK(drained(queue) == sorted);
}

}  // namespace
}  // namespace tutti::coordinator::scheduler
