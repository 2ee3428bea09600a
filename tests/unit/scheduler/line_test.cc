// Tasks of short programs stand in line on a slot.
#include "coordinator/life/line.h"

#include <catch2/catch.hpp>

#include "coordinator/scheduler/arrays.h"
#include "tests/unit/coordinator/cluster_driver.h"

namespace tutti::coordinator::test {

using enum JobState;

namespace {

spec::JobSpec array_spec(std::uint32_t count, std::int32_t priority = 0) {
  spec::JobSpec spec = run_spec(1);
  spec.array = {.count = count, .at_once = 0};
  spec.priority = priority;
  return spec;
}

void ended(Driver& driver, const wire::StartRank& start, Duration ran) {
  wire::RankExited exit;
  exit.job = start.job;
  exit.process = start.process;
  exit.generation = start.generation;
  exit.began = true;
  exit.ran_us = static_cast<std::uint64_t>(ran.count() / 1'000);
  driver.say("a", exit);
  driver.pass(0s);
}

void called_back(Driver& driver, const wire::StartRank& start) {
  wire::RankExited exit;
  exit.job = start.job;
  exit.process = start.process;
  exit.generation = start.generation;
  exit.ordered = true;
  exit.error = "stopped before its program began";
  driver.say("a", exit);
  driver.pass(0s);
}

// Those that stand in line, after the array's first task on a slot of two has ended.
std::vector<wire::StartRank> line_after(Driver& driver, Duration ran) {
  const auto first = driver.run_up();
  REQUIRE(first.size() == 2);
  ended(driver, first[0], ran);
  std::vector<wire::StartRank> next = driver.take<wire::StartRank>();
  REQUIRE_FALSE(next.empty());
  CHECK_FALSE(next.front().queue);
  CHECK(next.front().slot == first[0].slot);
  next.erase(next.begin());
  return next;
}

}  // namespace

TEST_CASE("line: short tasks stand behind the one on their slot, and half a line is made at once") {
  Driver driver;
  driver.join("a", 2);
  const JobId array = driver.submit(array_spec(200));
  const auto line = line_after(driver, 1ms);
  REQUIRE(line.size() == kLineMax);
  for (const wire::StartRank& start : line) {
    CHECK(start.queue);
    CHECK(start.at_once);
    CHECK(start.slot == 0);
  }
  CHECK(driver.job(line[0].job).processes.at(0).phase == "in line");
  CHECK(driver.state().nodes().at(0).free_slots == 0);
  CHECK(driver.job(array).summary.tasks.active == kLineMax + 2);
  for (std::size_t i = 0; i + 1 < kLineMax / 2; ++i) {
    ended(driver, line[i], 1ms);
    CHECK(driver.take<wire::StartRank>().empty());
  }
  ended(driver, line[kLineMax / 2], 1ms);
  CHECK(driver.take<wire::StartRank>().size() == kLineMax / 2);
  CHECK(driver.job(array).summary.tasks.done == kLineMax / 2 + 1);
}

TEST_CASE("line: who stands in it holds no slot that others wait for") {
  Driver driver;
  driver.join("a", 2);
  spec::JobSpec tasks = array_spec(200);
  tasks.limit.time_ms = 60'000;
  const JobId array = driver.submit(tasks);
  REQUIRE(line_after(driver, 1ms).size() == kLineMax);
  spec::JobSpec spec = run_spec(1);
  const JobId behind = driver.submit(spec);
  const auto explained = driver.state().explain(behind);
  CHECK(explained->ahead == std::vector<JobId>{array});
  REQUIRE(explained->holders.size() == 2);
  CHECK(explained->holders[0].slots + explained->holders[1].slots == 2);
  CHECK(driver.job(explained->holders[0].job).processes.at(0).phase != "in line");
  CHECK(driver.job(explained->holders[1].job).processes.at(0).phase != "in line");
  // What they may take is before it all the same: a minute for each of 199 tasks, on two slots.
  REQUIRE(explained->earliest_unix_ms);
  const std::int64_t wait =
      *explained->earliest_unix_ms - driver.job(behind).summary.submitted_unix_ms;
  CHECK(wait >= 199 * 60'000 / 2);
  CHECK(wait < 210 * 60'000 / 2);
}

TEST_CASE("line: what lasts longer has a shorter line, or none") {
  Driver driver;
  driver.join("a", 2);
  driver.submit(array_spec(200));
  const bool is_long = GENERATE(false, true);
  CHECK(line_after(driver, is_long ? 200ms : 20ms).size() == (is_long ? 0 : 5));
}

TEST_CASE("line: who stands for too long is called back, and nobody is charged") {
  Driver driver;
  driver.join("a", 2);
  const JobId array = driver.submit(array_spec(6));
  const auto line = line_after(driver, 1ms);
  REQUIRE(line.size() == 3);
  driver.pass(kStandsMax);
  const auto stops = driver.take<wire::StopRank>();
  REQUIRE(stops.size() == 3);
  for (const wire::StopRank& stop : stops) CHECK(stop.unless_begun);
  called_back(driver, line[1]);
  CHECK(driver.job_state(line[1].job) == queued);
  ended(driver, line[0], 1ms);  // it had begun before it was called
  called_back(driver, line[2]);
  driver.pass(2 * kStandsMax);
  CHECK(driver.take<wire::StopRank>().empty());
  const JobRecord& record = *driver.state().find_job(line[1].job);
  CHECK(record.failures_infrastructure == 0);
  CHECK(record.failures_user == 0);
  CHECK(record.preemptions == 0);
  CHECK(driver.job(array).summary.tasks.active == 4);
}

TEST_CASE("line: a job of higher priority finds nobody in its way") {
  Driver driver;
  driver.join("a", 2);
  driver.submit(array_spec(50));
  const auto line = line_after(driver, 1ms);
  spec::JobSpec urgent = run_spec(2);
  urgent.priority = 5;
  const JobId second = driver.submit(urgent);
  CHECK(driver.take<wire::StopRank>().size() == line.size());
  CHECK(driver.job_state(second) == queued);
  for (const wire::StartRank& start : line) called_back(driver, start);
  CHECK(driver.take<wire::StartRank>().empty());
}

TEST_CASE("line: a cancelled array takes its line along") {
  Driver driver;
  driver.join("a", 2);
  const JobId array = driver.submit(array_spec(50));
  const auto line = line_after(driver, 1ms);
  driver.on(CancelJob{.request = driver.next_request(), .job = array, .reason = "enough"});
  driver.pass(0s);
  CHECK(driver.take<wire::StopRank>().size() == line.size() + 2);
  for (const wire::StartRank& start : line) called_back(driver, start);
  CHECK(driver.job_state(array) == stopping);  // two of them had begun
}

TEST_CASE("line: a successor knows who stands in line, and calls them back in their time") {
  Driver driver;
  driver.join("a", 2);
  driver.submit(array_spec(50));
  const auto line = line_after(driver, 1ms);
  const Snapshot before = driver.state().snapshot();
  driver.restart();
  CHECK(driver.state().snapshot() == before);
  std::vector<wire::ProcessState> states;
  for (const wire::StartRank& start : line) {
    states.push_back(driver.state_of(start, wire::ProcessPhase::starting));
  }
  driver.rejoin("a", states);
  driver.take<wire::StartRank>();
  CHECK(driver.job(line[0].job).processes.at(0).phase == "in line");
  driver.pass(kStandsMax);
  std::size_t called = 0;
  for (const wire::StopRank& stop : driver.take<wire::StopRank>()) called += stop.unless_begun;
  CHECK(called == line.size());
}

}  // namespace tutti::coordinator::test
