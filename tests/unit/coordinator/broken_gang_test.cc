// What a program's gang that lost a rank has of its old place: its seats are held while its other
// programs end and it waits for its turn, for as long as on_loss.wait, and it goes first.
#include <algorithm>
#include <catch2/catch.hpp>

#include "tests/unit/coordinator/cluster_driver.h"

namespace tutti::coordinator::test {

using enum JobState;

namespace {

// A program of two ranks on both slots of one node, and others that wait behind it.
struct Program {
  explicit Program(spec::JobSpec spec = run_spec(2)) {
    driver.join("a", 2);
    job = driver.submit(spec);
    starts = driver.run_up();
    REQUIRE(starts.size() == 2);
  }
  // For this long the node is heard of.
  void pass(int seconds) {
    for (int i = 0; i < seconds; ++i) {
      driver.beat("a");
      driver.pass(1s);
    }
  }
  JobId submit(std::int32_t priority) {
    spec::JobSpec spec = run_spec(1);
    spec.priority = priority;
    return driver.submit(spec);
  }
  // Somebody else killed a rank; the other one is told to end.
  void kill_one() {
    driver.exited(starts[0], 0, 9);
    CHECK(driver.take<wire::StopRank>().size() == 1);
  }
  // The second loss in a row, so that the next try waits.
  void break_twice() {
    kill_one();
    driver.exited(starts[1], 0, 15);
    starts = driver.run_up();
    REQUIRE(starts.size() == 2);
    kill_one();
    driver.exited(starts[1], 0, 15);
  }
  std::size_t placed() { return driver.take<wire::StartRank>().size(); }

  Driver driver;
  JobId job;
  std::vector<wire::StartRank> starts;
};

}  // namespace

TEST_CASE("broken gang: its lost rank's slot is held while its other programs end") {
  Program at;
  const JobId urgent = at.submit(100);
  at.kill_one();
  at.pass(2);
  CHECK(at.placed() == 0);
  CHECK(at.driver.job_state(urgent) == queued);
  at.driver.exited(at.starts[1], 0, 15);
  CHECK(at.placed() == 2);
  CHECK(at.driver.job_state(at.job) == placed);
  CHECK(at.driver.job_state(urgent) == queued);
}

TEST_CASE("broken gang: its recovery has phases, as a training job's has") {
  Program at;
  const auto recoveries = [&] { return at.driver.job(at.job).recoveries; };
  at.kill_one();
  at.driver.pass(20ms);
  at.driver.exited(at.starts[1], 0, 15);
  CHECK(recoveries().at(0).aborted_ms == 20);
  CHECK(recoveries().at(0).decided_ms == 20);
  CHECK(recoveries().at(0).copied_ms == -1);
  at.driver.pass(10ms);
  // Another loss before it runs again is part of it.
  at.starts = at.driver.take<wire::StartRank>();
  REQUIRE(at.starts.size() == 2);
  at.driver.exited(at.starts[0], 0, 9);
  CHECK(recoveries().at(0).decided_ms == -1);
  at.driver.exited(at.starts[1], 0, 15);
  at.pass(5);  // the second loss in a row
  at.starts = at.driver.run_up();
  REQUIRE(recoveries().size() == 1);
  const Recovery recovery = recoveries()[0];
  CHECK(recovery.generation == Generation{3});
  CHECK(recovery.cause == "rank 0 of 2 on a: ended by signal 9");
  CHECK(recovery.aborted_ms == 30);
  CHECK(recovery.decided_ms >= recovery.aborted_ms);
  CHECK(recovery.regrouped_ms >= recovery.decided_ms);
  CHECK(recovery.copied_ms >= recovery.regrouped_ms);
  CHECK(recovery.first_step_ms == -1);
  CHECK(at.driver.state().counters().recoveries == 1);
  CHECK(at.driver.happened(at.job, EventKind::recovered));
  at.driver.exited(at.starts[0], 0, 9);
  CHECK(recoveries().size() == 2);
  CHECK(at.driver.state().counters().recoveries == 2);
  // A successor knows them.
  at.driver.restart();
  CHECK(recoveries().size() == 2);
}

TEST_CASE("broken gang: its slots are held while it waits before its next try") {
  Program at;
  const JobId urgent = at.submit(100);
  at.break_twice();
  CHECK(at.driver.job_state(at.job) == queued);
  CHECK(at.placed() == 0);
  at.pass(3);
  CHECK(at.placed() == 2);
  CHECK(at.driver.job_state(at.job) == placed);
  CHECK(at.driver.job_state(urgent) == queued);
}

TEST_CASE("broken gang: a failure of its user's holds nothing") {
  spec::JobSpec spec = run_spec(2);
  spec.retries.user = 5;
  Program at(spec);
  const JobId next = at.submit(0);
  at.driver.exited(at.starts[0], 1);
  CHECK(at.placed() == 1);
  CHECK(at.driver.job_state(next) == placed);
}

TEST_CASE("broken gang: what its user calls the infrastructure's failure holds its slots") {
  spec::JobSpec spec = run_spec(2);
  spec.retries.on = {{{"code", "75"}, {"class", "infrastructure"}}};
  Program at(spec);
  const JobId next = at.submit(100);
  at.driver.exited(at.starts[0], 75);
  CHECK(at.placed() == 0);
  CHECK(at.driver.job_state(next) == queued);
}

TEST_CASE("broken gang: another slot is held in place of a lost node's") {
  Driver driver;
  driver.join("a", 1);
  driver.join("b", 1);
  const JobId job = driver.submit(run_spec(2));
  const auto starts = driver.run_up();
  driver.disconnect("b");
  driver.pass(1s);
  REQUIRE(driver.job_state(job) == stopping);
  driver.exited(starts[0], 0, 15);
  driver.take<wire::StopRank>();
  // Two are free; the programs on the lost node may still run for some time.
  driver.join("c", 1);
  spec::JobSpec urgent = run_spec(1);
  urgent.priority = 100;
  const JobId other = driver.submit(urgent);
  const auto beat = [&](int seconds) {
    for (int i = 0; i < seconds; ++i) {
      driver.beat("a");
      driver.beat("c");
      driver.pass(1s);
    }
  };
  beat(3);
  CHECK(driver.take<wire::StartRank>().empty());
  CHECK(driver.job_state(other) == queued);
  // The lease, stop_after, and the grace of programs that do not end by themselves.
  beat(70);
  CHECK(driver.take<wire::StartRank>().size() == 2);
  CHECK(driver.job_state(job) == placed);
  CHECK(driver.job_state(other) == queued);
}

// A program that comes back has its old seats held, and another broken job lacks them. Where the
// program is placed elsewhere, they are for that job, and not for who came after.
TEST_CASE("broken gang: seats that it does not take are for others that are broken") {
  Driver driver;
  driver.join("z", 2);
  const JobId program = driver.submit(run_spec(2));
  const auto programs = driver.run_up();
  REQUIRE(programs.size() == 2);
  driver.exited(programs[1], 0);
  spec::JobSpec spec = train_spec(1);
  spec.on_loss.of_node = "wait";
  const JobId training = driver.submit(spec);
  REQUIRE(driver.run_up().size() == 1);
  driver.join("b", 2);
  driver.disconnect("z");
  driver.live(20s, {"b"});
  const JobId newcomer = driver.submit(run_spec(2));
  driver.live(1s, {"b"});
  REQUIRE(driver.take<wire::StartRank>().empty());
  driver.join("z", 2);
  driver.live(1s, {"b", "z"});
  CHECK(driver.job_state(program) == placed);
  CHECK(driver.job_state(training) == recovering);
  CHECK(driver.job_state(newcomer) == queued);
  const auto starts = driver.take<wire::StartRank>();
  REQUIRE(starts.size() == 3);
  CHECK(std::count_if(starts.begin(), starts.end(),
                      [&](const auto& each) { return each.job == training; }) == 1);
}

TEST_CASE("broken gang: after on_loss.wait it has its old place, or fails") {
  spec::JobSpec spec = run_spec(2);
  spec.on_loss.wait_ms = 10'000;
  spec.limit.queued_ms = 20'000;
  SECTION("queue") {
    Program at(spec);
    at.driver.exited(at.starts[0], 0, 9);
    at.driver.exited(at.starts[1], 0, 15);
    CHECK(at.placed() == 2);
  }
  SECTION("queue, once there is no room for it") {
    Driver driver;
    driver.join("a", 1);
    driver.join("b", 1);
    const JobId job = driver.submit(spec);
    const auto starts = driver.run_up();
    driver.disconnect("b");
    driver.pass(1s);
    driver.exited(starts[0], 0, 15);
    const JobId next = driver.submit(run_spec(1));
    const auto beat = [&](int seconds) {
      for (int i = 0; i < seconds; ++i) {
        driver.beat("a");
        driver.pass(1s);
      }
    };
    driver.take<wire::StartRank>();
    beat(74);
    CHECK(driver.take<wire::StartRank>().empty());
    CHECK(driver.job_state(next) == queued);
    beat(5);
    CHECK(driver.take<wire::StartRank>().size() == 1);
    CHECK(driver.job_state(next) == placed);
    // limit.queued has only begun.
    beat(15);
    CHECK(driver.job_state(job) == queued);
    beat(6);
    CHECK(driver.job_state(job) == failed);
    CHECK(driver.job(job).summary.exit_code == 5);
  }
  SECTION("fail") {
    spec.on_loss.then = "fail";
    Driver driver;
    driver.join("a", 2);
    const JobId job = driver.submit(spec);
    const auto starts = driver.run_up();
    driver.disconnect("a");
    driver.pass(1s);
    driver.pass(2min);
    CHECK(driver.job_state(job) == failed);
    CHECK(driver.job(job).summary.exit_code == 3);
    CHECK(driver.job(job).outcome.message.find("on_loss.wait") != std::string::npos);
  }
}

TEST_CASE("broken gang: a successor of the coordinator holds its slots, too") {
  Program at;
  const JobId urgent = at.submit(100);
  at.break_twice();
  CHECK(at.placed() == 0);
  at.driver.restart();
  at.driver.rejoin("a");
  at.driver.pass(500ms);
  CHECK(at.placed() == 0);
  at.pass(3);
  CHECK(at.placed() == 2);
  CHECK(at.driver.job_state(urgent) == queued);
}

TEST_CASE("broken gang: what still runs on a lost node is not its user's wait") {
  Driver driver;
  driver.join("a", 1);
  spec::JobSpec spec = run_spec(1);
  spec.stop_after_ms = 0;  // never
  spec.on_loss.wait_ms = 2'000;
  spec.limit.queued_ms = 5'000;
  const JobId job = driver.submit(spec);
  driver.run_up();
  driver.disconnect("a");
  driver.pass(1s);
  driver.join("b", 1);
  for (int i = 0; i < 15; ++i) {
    driver.beat("b");
    driver.pass(1s);
  }
  CHECK(driver.job_state(job) == failed);
  CHECK(driver.job(job).summary.exit_code == 3);
}

}  // namespace tutti::coordinator::test
