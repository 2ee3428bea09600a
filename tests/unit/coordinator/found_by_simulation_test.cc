// What the simulator found: each a seed first, and then a case that needs no chance.
#include <catch2/catch.hpp>

#include "tests/unit/coordinator/cluster_driver.h"

namespace tutti::coordinator::test {

TEST_CASE("cluster: a submit that is taken back is refused to all who asked for it") {
  Driver driver;
  driver.durable_through = 0;
  const RequestId first = driver.next_request();
  const RequestId second = driver.next_request();
  const auto submit = [&](RequestId request) {
    return driver.on(SubmitJob{
        .request = request, .key = "k", .owner = "user", .yaml = "spec", .spec = run_spec(1)});
  };
  submit(first);
  submit(second);
  const Decision taken_back =
      driver.on(LedgerFailed{.durable_through = 0, .message = "no space left"});
  REQUIRE(taken_back.immediate.size() == 2);
  for (const Effect& effect : taken_back.immediate) {
    CHECK(std::get<Error>(std::get<Answer>(effect).body).code == ErrorCode::unavailable);
  }
  CHECK(driver.state().jobs().empty());
}

TEST_CASE("cluster: a commit keeps the newest checkpoint that is known, however few are kept") {
  Driver driver;
  driver.join("a", 1);
  spec::JobSpec spec = train_spec(1);
  spec.checkpoint.keep = 1;
  driver.submit(spec);
  const auto starts = driver.run_up();
  CHECK(driver.save(starts, Generation{1}, 10).in_use.empty());
  CHECK(driver.save(starts, Generation{1}, 20).in_use == std::vector<std::uint64_t>{10});
}

TEST_CASE("cluster: a restarted coordinator keeps what it had ordered to be committed") {
  Driver driver;
  driver.join("a", 1);
  spec::JobSpec spec = train_spec(1);
  spec.checkpoint.keep = 1;
  const JobId job = driver.submit(spec);
  const auto starts = driver.run_up();
  driver.save(starts, Generation{1}, 10);
  // Nobody hears of these two, and each may be there.
  driver.write_parts(starts, Generation{1}, 20);
  driver.write_parts(starts, Generation{1}, 30);
  driver.restart();
  driver.rejoin("a", {driver.state_of(starts[0], wire::ProcessPhase::formed)});
  driver.take<wire::CommitCheckpoint>();
  const auto commit = driver.write_parts(starts, Generation{1}, 40);
  CHECK(commit.in_use == std::vector<std::uint64_t>{10, 20, 30});
  // What comes late is believed, for it was kept; what nobody had asked for is not.
  const auto committed = [&](std::uint64_t step) {
    driver.say("a", wire::CheckpointCommitted{.job = job,
                                              .generation = Generation{1},
                                              .process = starts[0].process,
                                              .step = step,
                                              .folder = "step-" + std::to_string(step),
                                              .error = {}});
    return driver.job(job).checkpoints.back().step;
  };
  CHECK(committed(35) == 10);
  CHECK(committed(20) == 20);
  CHECK(driver.write_parts(starts, Generation{1}, 50).in_use ==
        std::vector<std::uint64_t>{20, 30, 40});
}

TEST_CASE("cluster: a clock that is set back does not stretch the wait before a next try") {
  Driver driver;
  driver.join("a", 1);
  spec::JobSpec spec = run_spec(1);
  spec.retries.user = 5;
  const JobId job = driver.submit(spec);
  driver.exited(driver.run_up()[0], 1);
  driver.exited(driver.run_up()[0], 1);
  REQUIRE(driver.job_state(job) == JobState::queued);
  driver.set_clock(-24h);
  driver.pass(4s);
  CHECK(driver.take<wire::StartRank>().size() == 1);
}

namespace {

// A job of low priority that runs and is asked to leave for another one, with a minute's notice.
wire::StartRank preempted(Driver& driver, spec::JobSpec spec) {
  driver.join("a", 1);
  spec.preemptible = "always";
  driver.submit(spec);
  const wire::StartRank start = driver.run_up().front();
  spec::JobSpec urgent = train_spec(1);
  urgent.priority = 10;
  driver.submit(urgent);
  REQUIRE(driver.happened(start.job, EventKind::releasing));
  return start;
}

void drain(Driver& driver, std::uint64_t deadline_ms) {
  driver.on(DrainNode{.request = driver.next_request(),
                      .node = "a",
                      .reason = "maintenance",
                      .deadline_ms = deadline_ms});
}

}  // namespace

TEST_CASE("cluster: a drain's deadline counts for who was asked to leave with more time") {
  Driver driver;
  const JobId job = preempted(driver, train_spec(1)).job;
  CHECK(driver.take<wire::SetFlags>().size() == 1);
  drain(driver, 4'000);
  driver.pass(3s);
  driver.beat("a");
  const auto stops = driver.take<wire::StopRank>();
  REQUIRE(stops.size() == 1);
  CHECK(stops[0].grace_ms <= 1'000);
  CHECK(driver.job_state(job) == JobState::stopping);
}

TEST_CASE("cluster: a drain's deadline counts for a program that is being stopped with more time") {
  Driver driver;
  preempted(driver, run_spec(1));
  const auto first = driver.take<wire::StopRank>();
  REQUIRE(first.size() == 1);
  CHECK(first[0].grace_ms > 50'000);
  drain(driver, 4'000);
  const auto again = driver.take<wire::StopRank>();
  REQUIRE(again.size() == 1);
  CHECK(again[0].process == first[0].process);
  CHECK(again[0].grace_ms < 4'000);
  // Once is enough.
  driver.pass(1s);
  CHECK(driver.take<wire::StopRank>().empty());
}

TEST_CASE("cluster: a clock that is set back does not stretch the time to leave") {
  Driver driver;
  const wire::StartRank start = preempted(driver, run_spec(1));
  driver.take<wire::StopRank>();
  driver.set_clock(-24h);
  driver.restart();
  driver.rejoin("a", {driver.state_of(start, wire::ProcessPhase::stopping)});
  const auto stops = driver.take<wire::StopRank>();
  REQUIRE(stops.size() == 1);
  CHECK(stops[0].grace_ms <= 60'000);
}

TEST_CASE("cluster: a job that does not leave in its time is stopped, whatever else is due") {
  Driver driver;
  const JobId job = preempted(driver, train_spec(1)).job;
  for (int second = 0; second < 61; ++second) {
    driver.pass(1s);
    driver.beat("a");
  }
  CHECK(driver.job_state(job) == JobState::stopping);
  const auto stops = driver.take<wire::StopRank>();
  REQUIRE(stops.size() == 1);
  CHECK(stops[0].grace_ms <= 5'000);
}

TEST_CASE("cluster: who stands still instead of committing the last checkpoint is replaced") {
  ClusterSettings settings = Driver::default_settings();
  Driver driver(settings);
  driver.join("a", 1);
  const JobId job = driver.submit(train_spec(1, 100));
  const auto starts = driver.run_up();
  driver.write_parts(starts, Generation{1}, 100);
  driver.finished(starts[0], Generation{1}, 100);
  std::vector<wire::StopRank> stops;
  for (Duration waited{}; stops.empty() && waited < 10 * settings.commit_max; waited += 1s) {
    driver.pass(1s);
    driver.beat("a");
    stops = driver.take<wire::StopRank>();
  }
  REQUIRE(stops.size() == 1);
  CHECK(driver.job_state(job) == JobState::recovering);
  driver.take<wire::CommitCheckpoint>();
  driver.exited(starts[0], 0, 9);
  const auto successor = driver.take<wire::StartRank>();
  REQUIRE(successor.size() == 1);
  driver.ready(successor[0]);
  // What was written is still whole, and the successor commits it.
  const auto commits = driver.take<wire::CommitCheckpoint>();
  REQUIRE(commits.size() == 1);
  CHECK(commits[0].process == successor[0].process);
  CHECK(commits[0].step == 100);
  CHECK(commits[0].generation == Generation{1});
}

}  // namespace tutti::coordinator::test
