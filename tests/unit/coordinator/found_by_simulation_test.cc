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
