// Jobs that are asked to leave their slots: preempted, drained, cancelled with a checkpoint,
// resized.
#include <catch2/catch.hpp>

#include "coordinator/cluster/cluster_state.h"
#include "tests/unit/coordinator/cluster_driver.h"

namespace tutti::coordinator::test {

using enum JobState;
using wire::FailureClass;

namespace {

void cancel(Driver& driver, JobId job) {
  driver.on(
      CancelJob{.request = driver.next_request(), .job = job, .reason = "enough", .save = true});
}

void end_all(Driver& driver, const std::vector<wire::StartRank>& starts) {
  driver.take<wire::StopRank>();
  for (const auto& start : starts) driver.exited(start, 0);
}

}  // namespace

TEST_CASE("release: cancel with save lets every rank finish one step, save, and only then end") {
  Driver driver;
  driver.join("a", 2);
  const JobId job = driver.submit(train_spec(2));
  const auto starts = driver.run_up();
  cancel(driver, job);
  const auto flags = driver.take<wire::SetFlags>();
  REQUIRE(flags.size() == 2);
  CHECK(flags[0].save);
  CHECK(flags[0].stop);
  CHECK(flags[0].generation == Generation{1});
  CHECK(driver.job_state(job) == running);
  driver.save(starts, Generation{1}, 9);
  driver.finished(starts[0], Generation{1}, 9);
  CHECK(driver.take<wire::StopRank>().empty());
  driver.finished(starts[1], Generation{1}, 9);
  CHECK(driver.job_state(job) == stopping);
  CHECK(driver.take<wire::StopRank>().size() == 2);
  end_all(driver, starts);
  CHECK(driver.job_state(job) == cancelled);
  CHECK(driver.job(job).checkpoints.back().step == 9);
  CHECK(driver.job(job).outcome.message == "cancelled: enough");
}

TEST_CASE("release: a job that does not save within its notice is stopped hard") {
  Driver driver;
  driver.join("a", 1);
  const JobId job = driver.submit(train_spec(1));
  const auto starts = driver.run_up();
  cancel(driver, job);
  for (int i = 0; i < 130; ++i) {
    driver.beat("a");
    driver.pass(500ms);
  }
  const auto stops = driver.take<wire::StopRank>();
  REQUIRE(stops.size() == 1);
  CHECK(stops[0].grace_ms <= 1'000);
  end_all(driver, starts);
  CHECK(driver.job_state(job) == cancelled);
}

TEST_CASE("release: a drained node's training saves, leaves and goes on elsewhere from there") {
  Driver driver;
  driver.join("a", 1);
  const JobId job = driver.submit(train_spec(1));
  const auto starts = driver.run_up();
  driver.join("b", 1);
  driver.drain("a");
  REQUIRE(driver.take<wire::SetFlags>().size() == 1);
  driver.save(starts, Generation{1}, 5);
  driver.finished(starts[0], Generation{1}, 5);
  end_all(driver, starts);
  const auto again = driver.take<wire::StartRank>();
  REQUIRE(again.size() == 1);
  driver.ready(again[0]);
  const auto group = driver.take<wire::FormGroup>();
  REQUIRE(group.size() == 1);
  CHECK(group[0].base_step == 5);
  CHECK(driver.state().find_job(job)->drains == 1);
  CHECK(driver.state().find_job(job)->failures_infrastructure == 0);
  for (const NodeView& node : driver.state().nodes()) {
    CHECK(node.processes.size() == (node.name == "b" ? 1U : 0U));
  }
}

TEST_CASE("release: a draining node gets no work, until it is undrained") {
  Driver driver;
  driver.join("a", 1);
  driver.drain("a");
  const JobId job = driver.submit(train_spec(1));
  CHECK(driver.job_state(job) == queued);
  driver.restart();
  driver.rejoin("a");
  driver.pass(1s);
  CHECK(driver.job_state(job) == queued);
  driver.on(UndrainNode{.request = driver.next_request(), .node = "a"});
  driver.pass(0s);
  CHECK(driver.take<wire::StartRank>().size() == 1);
}

TEST_CASE("release: a program on a drained node gets the notice as its grace and starts again") {
  Driver driver;
  driver.join("a", 1);
  const JobId job = driver.submit(run_spec(1));
  const auto starts = driver.run_up();
  driver.drain("a", 20'000);
  const auto stops = driver.take<wire::StopRank>();
  REQUIRE(stops.size() == 1);
  CHECK(stops[0].grace_ms >= 15'000);
  CHECK(stops[0].grace_ms < 20'000);
  driver.exited(starts[0], 0, 15);
  CHECK(driver.job_state(job) == queued);
  CHECK(driver.state().find_job(job)->failures_user == 0);
  CHECK(driver.state().find_job(job)->drains == 1);
}

TEST_CASE("release: a worker that says it leaves is drained, and takes work when it is back") {
  Driver driver;
  driver.join("a", 1);
  const JobId job = driver.submit(train_spec(1));
  const auto starts = driver.run_up();
  driver.say("a", wire::WorkerLeaving{.deadline_ms = 30'000, .reason = "told to stop"});
  CHECK(driver.take<wire::SetFlags>().size() == 1);
  driver.save(starts, Generation{1}, 3);
  driver.finished(starts[0], Generation{1}, 3);
  end_all(driver, starts);
  CHECK(driver.job_state(job) == queued);
  driver.disconnect("a");
  driver.join("a", 1);
  CHECK(driver.take<wire::StartRank>().size() == 1);
}

TEST_CASE("release: a worker that leaves is not given work by an undrain, but once it is back") {
  Driver driver;
  driver.join("a", 1);
  const JobId job = driver.submit(train_spec(1));
  const auto starts = driver.run_up();
  driver.drain("a");
  driver.say("a", wire::WorkerLeaving{.deadline_ms = 30'000, .reason = "told to stop"});
  driver.take<wire::SetFlags>();
  driver.save(starts, Generation{1}, 3);
  driver.finished(starts[0], Generation{1}, 3);
  end_all(driver, starts);
  REQUIRE(driver.job_state(job) == queued);
  const bool lifted = GENERATE(true, false);
  if (lifted) driver.on(UndrainNode{.request = driver.next_request(), .node = "a"});
  driver.pass(1s);
  CHECK(driver.take<wire::StartRank>().empty());
  driver.disconnect("a");
  driver.join("a", 1);
  CHECK(driver.take<wire::StartRank>().size() == (lifted ? 1 : 0));
}

TEST_CASE("release: asked to leave while it recovers, one full holder saves alone") {
  Driver driver;
  driver.join("a", 1);
  driver.join("b", 1);
  const JobId job = driver.submit(train_spec(2));
  const auto starts = driver.run_up();
  driver.disconnect("b");
  driver.pass(300ms);
  CHECK(driver.job_state(job) == recovering);
  cancel(driver, job);
  const auto regroups = driver.take<wire::Regroup>();
  REQUIRE_FALSE(regroups.empty());
  CHECK(regroups.back().size == 1);
  CHECK(regroups.back().process == starts[0].process);
  const Generation solo = regroups.back().generation;
  driver.ready(starts[0], solo, holds(7));
  const auto groups = driver.take<wire::FormGroup>();
  REQUIRE(groups.size() == 1);
  CHECK(groups[0].base_step == 7);
  CHECK(driver.take<wire::SetFlags>().size() == 1);
  driver.formed(starts[0], groups[0]);
  CHECK(driver.job_state(job) == recovering);
  driver.save({starts[0]}, solo, 7);
  driver.finished(starts[0], solo, 7);
  driver.take<wire::StopRank>();
  driver.exited(starts[0], 0);
  CHECK(driver.job_state(job) == cancelled);
  CHECK(driver.job(job).checkpoints.back().step == 7);
}

TEST_CASE("release: who was cancelled with save is not queued again by a failure meanwhile") {
  Driver driver;
  driver.join("a", 1);
  spec::JobSpec spec = train_spec(1);
  spec.retries.user = 3;
  const JobId job = driver.submit(spec);
  const auto starts = driver.run_up();
  cancel(driver, job);
  driver.exited(starts[0], 1, 0, FailureClass::user);
  CHECK(driver.job_state(job) == cancelled);
}

TEST_CASE("release: a checkpoint that another job reads is not pruned while that job lives") {
  Driver driver;
  driver.join("a", 2);
  const JobId job = driver.submit(train_spec(1));
  const auto starts = driver.run_up();
  spec::JobSpec reader = serve_spec();
  reader.model.path = driver.job(job).folder + "/checkpoints/step-4";
  const JobId serving = driver.submit(reader);
  const auto commit = [&](std::uint64_t step) {
    return driver.save(starts, Generation{1}, step).in_use;
  };
  CHECK(commit(8) == std::vector<std::uint64_t>{4});
  const auto server = driver.take<wire::StartRank>();
  driver.on(
      CancelJob{.request = driver.next_request(), .job = serving, .reason = {}, .save = false});
  driver.exited(server[0], 0);
  // Only the newest that is known, should the answer be lost.
  CHECK(commit(12) == std::vector<std::uint64_t>{8});
}

TEST_CASE("release: nobody waits for a full disk to be told of a cancel") {
  Driver driver;
  driver.join("a", 1);
  const JobId job = driver.submit(train_spec(1));
  driver.run_up();
  driver.on(LedgerFailed{.durable_through = UINT64_MAX, .message = "full"});
  const RequestId request = driver.next_request();
  driver.on(CancelJob{.request = request, .job = job, .reason = {}, .save = false});
  REQUIRE(driver.answer(request).has_value());
  CHECK(std::get<Error>(*driver.answer(request)).code == ErrorCode::unavailable);
  CHECK(driver.job_state(job) == running);
}

TEST_CASE("release: a lost worker that stays away is forgotten with what it held") {
  Driver driver;
  driver.join("a", 1);
  const JobId job = driver.submit(train_spec(1));
  const auto starts = driver.run_up();
  driver.disconnect("a");
  driver.pass(300ms);
  CHECK(driver.state().nodes()[0].processes.size() == 1);
  driver.pass(std::chrono::hours(25));
  CHECK(driver.state().nodes().empty());
  // Should it come back after all, what it runs is ended.
  driver.join("b", 1);
  driver.rejoin("b", {driver.state_of(starts[0], wire::ProcessPhase::formed)});
  CHECK(driver.take<wire::StopRank>().size() == 1);
  CHECK_FALSE(is_terminal(driver.job_state(job)));
}

TEST_CASE("release: beside a program that no silence ends, nobody begins, also after a day") {
  Driver driver;
  driver.join("a", 1);
  driver.join("b", 1);
  spec::JobSpec spec = run_spec(1);
  spec.stop_after_ms = 0;
  const JobId job = driver.submit(spec);
  driver.run_up();
  driver.disconnect("a");
  driver.pass(300ms);
  driver.rejoin("b");
  driver.pass(std::chrono::hours(25));
  driver.rejoin("b");
  REQUIRE(driver.job_state(job) == queued);
  CHECK(driver.take<wire::StartRank>().empty());
  // Who cancels it does not wait for it any more.
  driver.on(CancelJob{.request = driver.next_request(), .job = job, .reason = {}});
  driver.pass(std::chrono::hours(1));
  CHECK(driver.state().nodes().size() == 1);
}

}  // namespace tutti::coordinator::test
