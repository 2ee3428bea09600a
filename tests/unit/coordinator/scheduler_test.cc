#include <catch2/catch.hpp>

#include "tests/unit/coordinator/cluster_driver.h"

namespace tutti::coordinator::test {

using enum JobState;

TEST_CASE("scheduler: a gang starts whole or not at all") {
  Driver driver;
  driver.join("a", 1);
  const JobId job = driver.submit(run_spec(2));
  CHECK(driver.take<wire::StartRank>().empty());
  CHECK(driver.state().nodes()[0].free_slots == 1);
  CHECK(driver.happened(job, EventKind::waiting));
  CHECK(driver.job(job).waiting == "needs 2 slots, and the cluster has 1 that suit it");
  driver.join("b", 1);
  CHECK(driver.take<wire::StartRank>().size() == 2);
}

TEST_CASE("scheduler: priority first, then age; a job that can start in time keeps its turn") {
  Driver driver;
  driver.join("a", 2);
  const JobId busy = driver.submit(run_spec(1));
  const auto starts = driver.run_up();
  const JobId large = driver.submit(run_spec(2));
  const JobId small = driver.submit(run_spec(1));
  spec::JobSpec urgent_spec = run_spec(1);
  urgent_spec.priority = 1;
  CHECK(driver.job_state(small) == queued);
  CHECK(driver.job(small).waiting == "waits behind job 2");
  const JobId urgent = driver.submit(urgent_spec);
  CHECK(driver.job_state(urgent) == placed);
  const auto more = driver.run_up();
  driver.exited(starts[0], 0);
  CHECK(driver.job_state(busy) == done);
  CHECK(driver.job_state(large) == queued);
  CHECK(driver.job_state(small) == queued);
  driver.exited(more[0], 0);
  CHECK(driver.job_state(large) == placed);
  CHECK(driver.job_state(small) == queued);
}

TEST_CASE("scheduler: a job that waits for a server's slots is passed") {
  Driver driver;
  driver.join("a", 2);
  driver.submit(serve_spec());
  driver.run_up();
  driver.submit(run_spec(2));
  const JobId small = driver.submit(run_spec(1));
  CHECK(driver.job_state(small) == placed);
}

TEST_CASE("scheduler: a gang is as large as the cluster and its limits allow") {
  Driver driver;
  driver.join("a", 3);
  spec::JobSpec spec = train_spec(1);
  spec.resources.ranks_max = 8;
  spec.parallel.shards = 8;
  driver.submit(spec);
  CHECK(driver.take<wire::StartRank>().size() == 3);
}

TEST_CASE("scheduler: a worker that runs no programs gets none, and a suspect one no work") {
  Driver driver;
  driver.join("a", 1);
  driver.pass(2s);
  const JobId job = driver.submit(run_spec(1));
  CHECK(driver.state().nodes()[0].state == "suspect");
  CHECK(driver.job_state(job) == queued);
  driver.beat("a");
  CHECK(driver.job_state(job) == placed);
}

TEST_CASE("scheduler: a job that asks for a kind of device runs only where its worker has that") {
  Driver driver;
  driver.join("a", 1);
  spec::JobSpec spec = run_spec(1);
  spec.resources.device = "gpu";
  const JobId job = driver.submit(spec);
  CHECK(driver.job_state(job) == queued);
  const auto explained = driver.state().explain(job);
  REQUIRE(explained.has_value());
  CHECK(explained->reason == ExplainReason::never_fits);
  CHECK(explained->summary == "no worker has the label device=gpu");
  wire::Hello hello;
  hello.worker = "b";
  hello.incarnation = "other";
  hello.slots = 1;
  hello.join_token = "join";
  hello.labels = {"device=gpu"};
  driver.on(WorkerFrame{.peer = "b/other/1", .session = {}, .sequence = {}, .message = hello});
  driver.pass(0s);
  CHECK(driver.job_state(job) == placed);
}

TEST_CASE("membership: silence makes a suspect after three beats, with nothing else happening") {
  Driver driver;
  driver.join("a", 1);
  const auto state = [&] { return driver.state().nodes()[0].state; };
  driver.pass(1400ms);
  CHECK(state() == "ready");
  driver.pass(100ms);
  CHECK(state() == "suspect");
  driver.beat("a");
  CHECK(state() == "ready");
  // Also a second time, and after the coordinator itself stood still.
  driver.pass(1500ms);
  CHECK(state() == "suspect");
  driver.stand_still(6s);
  CHECK(state() == "ready");
  driver.pass(1500ms);
  CHECK(state() == "suspect");
  driver.pass(3500ms);
  CHECK(state() == "lost");
}

TEST_CASE("membership: a wrong token is refused, and a second worker of one name too") {
  Driver driver;
  driver.join("a", 1);
  wire::Hello hello;
  hello.worker = "a";
  hello.incarnation = "other";
  hello.join_token = "join";
  const auto refused = [&] {
    const Decision decision = driver.on(
        WorkerFrame{.peer = "a/other/1", .session = {}, .sequence = {}, .message = hello});
    REQUIRE(decision.immediate.size() == 1);
    CHECK(decision.facts.empty());
    return std::get<wire::Refused>(std::get<SendToWorker>(decision.immediate[0]).message).code;
  };
  CHECK(refused() == "unavailable");
  hello.join_token = "guess";
  CHECK(refused() == "permission_denied");
}

TEST_CASE("membership: frames of an old session and unknown peers are counted and dropped") {
  Driver driver;
  driver.join("a", 1);
  driver.on(WorkerFrame{
      .peer = "a/x/1", .session = SessionId{1}, .sequence = {}, .message = wire::Heartbeat{}});
  CHECK(driver.state().counters().stale_frames == 1);
  CHECK_FALSE(driver.state().owns_session("a/x/1", SessionId{1}));
}

TEST_CASE("faults: a signal goes to the rank's process, and only where faults are allowed") {
  Driver driver;
  driver.join("a", 1);
  const JobId job = driver.submit(run_spec(1));
  const auto starts = driver.run_up();
  driver.on(InjectFault{
      .request = driver.next_request(), .action = FaultAction::kill_rank, .job = job, .rank = 0});
  const auto signals = driver.take<wire::SignalRank>();
  REQUIRE(signals.size() == 1);
  CHECK(signals[0].process == starts[0].process);
  CHECK(signals[0].signal == 9);
  ClusterSettings settings = Driver::default_settings();
  settings.faults = false;
  Driver strict(settings);
  const RequestId request = strict.next_request();
  strict.on(
      InjectFault{.request = request, .action = FaultAction::kill_rank, .job = job, .rank = 0});
  CHECK(std::get<Error>(*strict.answer(request)).code == ErrorCode::permission_denied);
}

}  // namespace tutti::coordinator::test
