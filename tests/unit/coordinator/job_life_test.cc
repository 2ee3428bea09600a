#include <catch2/catch.hpp>

#include "coordinator/cluster/durable.h"
#include "tests/unit/coordinator/cluster_driver.h"

namespace tutti::coordinator::test {

using enum JobState;

namespace {

spec::JobSpec urgent_spec() {
  spec::JobSpec spec = run_spec(1);
  spec.priority = 5;
  return spec;
}

// Something more urgent is submitted, and the only rank of the job makes room for it.
JobId displace(Driver& driver, JobId job, const wire::StartRank& start) {
  const JobId other = driver.submit(urgent_spec());
  driver.exited(start, 0, 15);
  REQUIRE(driver.job_state(job) == queued);
  return other;
}

}  // namespace

TEST_CASE("job life: nothing is remembered of what has ended but its record") {
  Driver driver;
  driver.join("a", 2);
  const JobId job = driver.submit(run_spec(2));
  const auto starts = driver.run_up();
  CHECK(driver.state().soft_sizes().processes == 2);
  CHECK(driver.state().soft_sizes().jobs == 1);
  for (const auto& start : starts) driver.exited(start, 0);
  REQUIRE(driver.job_state(job) == JobState::done);
  driver.pass(1s);
  const SoftSizes sizes = driver.state().soft_sizes();
  CHECK(sizes.processes == 0);
  CHECK(sizes.jobs == 0);
  CHECK(sizes.job_dues == 0);
  CHECK(sizes.counted == 0);
  CHECK(sizes.links == 1);
  CHECK(sizes.peers == 1);
}

TEST_CASE("cluster: a run job is started, executed, and done when its programs exit with 0") {
  Driver driver;
  driver.join("a", 2);
  const JobId job = driver.submit(run_spec(2));
  CHECK(driver.job_state(job) == placed);
  const auto starts = driver.run_up();
  REQUIRE(starts.size() == 2);
  CHECK(starts[0].slot != starts[1].slot);
  CHECK(starts[0].threads == 2);
  CHECK(starts[0].folder == "/state/jobs/1");
  CHECK(driver.job_state(job) == running);
  driver.exited(starts[1], 0);
  CHECK(driver.job_state(job) == running);
  CHECK(driver.state().nodes().front().free_slots == 1);
  driver.exited(starts[0], 0);
  CHECK(driver.job_state(job) == done);
  CHECK(driver.job(job).summary.exit_code == 0);
  CHECK(driver.state().nodes().front().free_slots == 2);
  CHECK(driver.orders_left() == 0);
}

TEST_CASE("cluster: a report that it does not understand holds up none of those behind it") {
  Driver driver;
  driver.join("a", 2);
  const JobId job = driver.submit(run_spec(2));
  driver.say_unknown("a");
  const auto starts = driver.run_up();
  REQUIRE(starts.size() == 2);
  driver.say_unknown("a");
  driver.exited(starts[0], 0);
  driver.exited(starts[1], 0);
  CHECK(driver.job_state(job) == done);
}

TEST_CASE("cluster: a train job ends when all ranks are finished and its checkpoint is committed") {
  Driver driver;
  driver.join("a", 2);
  const JobId job = driver.submit(train_spec(2));
  const auto starts = driver.run_up();
  const wire::CheckpointFile file{.name = "part", .bytes = 1, .hash = "x"};
  for (const auto& start : starts) {
    driver.write_part(start, start.generation, 100, {file});
    driver.finished(start, start.generation, 100);
  }
  const auto commits = driver.take<wire::CommitCheckpoint>();
  REQUIRE(commits.size() == 1);
  CHECK(commits[0].files.size() == 2);
  CHECK(commits[0].step == 100);
  CHECK(driver.take<wire::StopRank>().empty());
  driver.say("a", wire::CheckpointCommitted{.job = job,
                                            .generation = commits[0].generation,
                                            .process = commits[0].process,
                                            .step = 100,
                                            .folder = "step-100",
                                            .error = {}});
  CHECK(driver.take<wire::StopRank>().size() == 2);
  CHECK(driver.job_state(job) == stopping);
  for (const auto& start : starts) driver.exited(start, 0);
  CHECK(driver.job_state(job) == done);
  CHECK(driver.job(job).checkpoints == std::vector<CommittedCheckpoint>{{100, "step-100"}});
}

TEST_CASE("cluster: a failed checkpoint is an event, and the job goes on") {
  Driver driver;
  driver.join("a", 2);
  const JobId job = driver.submit(train_spec(2));
  const auto starts = driver.run_up();
  for (const auto& start : starts) {
    driver.write_part(start, start.generation, 10, {}, start.rank == 0 ? "disk full" : "");
  }
  CHECK(driver.happened(job, EventKind::checkpoint_failed));
  CHECK(driver.take<wire::CommitCheckpoint>().empty());
  CHECK(driver.job_state(job) == running);
  for (const auto& start : starts) driver.finished(start, start.generation, 100);
  CHECK(driver.take<wire::StopRank>().size() == 2);
}

TEST_CASE("cluster: a key gives its job again, and another spec under it is refused") {
  Driver driver;
  const JobId job = driver.submit(run_spec(1), "key");
  CHECK(driver.submit(run_spec(1), "key") == job);
  CHECK(driver.submit_refused(run_spec(1), "key", "other").code == ErrorCode::already_exists);
  driver.pass(std::chrono::hours(24 * 8));
  CHECK(driver.submit(run_spec(1), "key", "other") != job);
}

TEST_CASE("cluster: a key is its user's own, also once its job is forgotten") {
  ClusterSettings settings = Driver::default_settings();
  settings.ended_jobs_max = 1;
  Driver driver(settings);
  const JobId own = driver.submit(run_spec(1), "key");
  const auto submit_as = [&](const std::string& owner) {
    const RequestId request = driver.next_request();
    driver.on(SubmitJob{
        .request = request, .key = "key", .owner = owner, .yaml = "spec", .spec = run_spec(1)});
    return std::get<JobAccepted>(*driver.answer(request)).job;
  };
  const JobId other = submit_as("other");
  CHECK(other != own);
  CHECK(submit_as("other") == other);
  CHECK(driver.state().find_job(other)->owner == "other");
  for (const JobId job : {own, other}) {
    driver.on(CancelJob{.request = driver.next_request(), .job = job, .reason = {}});
  }
  CHECK_FALSE(driver.state().knows(own));
  for (int life = 0; life < 2; ++life) {
    CHECK(submit_as("user") == own);
    CHECK(submit_as("other") == other);
    driver.restart();
  }
}

TEST_CASE(
    "cluster: an old ledger's key, which does not say whose it is, is good for whoever asks") {
  Snapshot snapshot;
  snapshot.next_job = 5;
  snapshot.keys = {
      {.key = "key", .job = JobId{4}, .spec_hash = hash_of_spec("spec"), .unix_ms = 1'000}};
  Durable durable;
  durable.restore(snapshot);
  REQUIRE(durable.with_key("anybody", "key"));
  CHECK(durable.with_key("anybody", "key")->job == JobId{4});
  CHECK_FALSE(durable.with_key("anybody", "other"));
}

TEST_CASE("cluster: keys that had to go before their time are counted, and no others") {
  Snapshot snapshot;
  for (std::size_t i = 0; i < kOldKeysMax; ++i) {
    snapshot.keys.push_back({.key = std::to_string(i),
                             .job = JobId{i + 1},
                             .spec_hash = 0,
                             .unix_ms = static_cast<std::int64_t>(i),
                             .owner = "ann"});
  }
  snapshot.next_job = kOldKeysMax + 1;
  Durable durable;
  durable.restore(snapshot);
  CHECK(durable.keys_kept() == kOldKeysMax);
  const JobId job = durable.next_job();
  const auto unix_ms = static_cast<std::int64_t>(kOldKeysMax);
  durable.apply(JobSubmitted{.job = job,
                             .key = "new",
                             .owner = "ann",
                             .spec = {},
                             .folder = {},
                             .terms = {},
                             .unix_ms = unix_ms});
  Outcome outcome;
  outcome.state = cancelled;
  durable.apply(JobSettled{.job = job, .outcome = outcome, .step = 0, .unix_ms = unix_ms});
  durable.apply(JobForgotten{.job = job});
  CHECK(durable.keys_kept() == kOldKeysMax);
  CHECK(durable.keys_dropped_early() == 1);
  CHECK_FALSE(durable.with_key("ann", "0"));
  CHECK(durable.with_key("ann", "1"));
  CHECK(durable.with_key("ann", "new"));
  // Those whose time is over are not missed.
  durable.apply(JobSubmitted{.job = durable.next_job(),
                             .key = {},
                             .owner = "ann",
                             .spec = {},
                             .folder = {},
                             .terms = {},
                             .unix_ms = 2 * kKeyLifeMs});
  CHECK(durable.keys_kept() == 0);
  CHECK(durable.keys_dropped_early() == 1);
}

TEST_CASE("cluster: a user's failure uses retries.user, and only that") {
  Driver driver;
  driver.join("a", 1);
  spec::JobSpec spec = run_spec(1);
  spec.retries.user = 1;
  spec.retries.backoff_first_ms = 0;
  const JobId job = driver.submit(spec);
  driver.exited(driver.run_up()[0], 1, 0, wire::FailureClass::user);
  CHECK(driver.happened(job, EventKind::restarted));
  CHECK(driver.job(job).summary.generation == Generation{2});
  // An infrastructure failure in between does not count.
  driver.exited(driver.run_up()[0], 0, 9, wire::FailureClass::infrastructure);
  driver.exited(driver.run_up()[0], 3, 0, wire::FailureClass::user);
  CHECK(driver.job_state(job) == failed);
  CHECK(driver.job(job).summary.exit_code == 1);
  CHECK(driver.job(job).outcome.failure == wire::FailureClass::user);
}

TEST_CASE("cluster: a gang of programs is restarted as a gang") {
  Driver driver;
  driver.join("a", 2);
  const JobId job = driver.submit(run_spec(2));
  const auto starts = driver.run_up();
  driver.exited(starts[0], 0, 9, wire::FailureClass::infrastructure);
  CHECK(driver.take<wire::StopRank>().size() == 1);
  CHECK(driver.job_state(job) == stopping);
  driver.exited(starts[1], 0, 15);
  const auto again = driver.take<wire::StartRank>();
  REQUIRE(again.size() == 2);
  CHECK(again[0].generation == Generation{2});
  CHECK(driver.job(job).summary.restarts == 1);
}

TEST_CASE("cluster: three of our own failures at one step end a job") {
  Driver driver;
  driver.join("a", 1);
  const JobId job = driver.submit(train_spec(1));
  for (int i = 0; i < 3; ++i) {
    CHECK(driver.job_state(job) != failed);
    driver.exited(driver.run_up()[0], 0, 6, wire::FailureClass::own);
  }
  CHECK(driver.job_state(job) == failed);
  CHECK(driver.job(job).summary.exit_code == 4);
}

TEST_CASE("cluster: cancel ends a job in any state, once") {
  Driver driver;
  const JobId waiting = driver.submit(run_spec(1));
  driver.on(CancelJob{.request = driver.next_request(), .job = waiting, .reason = "no"});
  CHECK(driver.job_state(waiting) == cancelled);
  driver.join("a", 1);
  const JobId busy = driver.submit(run_spec(1));
  const auto starts = driver.run_up();
  driver.on(CancelJob{.request = driver.next_request(), .job = busy, .reason = "enough"});
  driver.on(CancelJob{.request = driver.next_request(), .job = busy, .reason = "again"});
  CHECK(driver.take<wire::StopRank>().size() == 1);
  driver.exited(starts[0], 0, 15);
  CHECK(driver.job_state(busy) == cancelled);
  CHECK(driver.job(busy).outcome.message == "cancelled: enough");
  CHECK(driver.job(busy).summary.exit_code == 1);
  const RequestId unknown = driver.next_request();
  driver.on(CancelJob{.request = unknown, .job = JobId{99}, .reason = {}});
  CHECK(std::get<Error>(*driver.answer(unknown)).code == ErrorCode::not_found);
}

TEST_CASE("cluster: limits of time end a job as its user's") {
  Driver driver;
  driver.join("a", 1);
  spec::JobSpec spec = run_spec(1);
  spec.limit.time_ms = 1'000;
  const JobId job = driver.submit(spec);
  const auto starts = driver.run_up();
  driver.pass(999ms);
  CHECK(driver.job_state(job) == running);
  driver.pass(1ms);
  CHECK(driver.job_state(job) == stopping);
  driver.exited(starts[0], 0, 15);
  CHECK(driver.job(job).summary.exit_code == 1);
  spec::JobSpec large = run_spec(50);
  large.limit.queued_ms = 1'000;
  const JobId never = driver.submit(large);
  driver.pass(1s);
  CHECK(driver.job(never).summary.exit_code == 5);
}

TEST_CASE("cluster: limit.time counts what a job runs, not what it waits after it had to leave") {
  Driver driver;
  driver.join("a", 1);
  spec::JobSpec spec = run_spec(1);
  spec.limit.time_ms = 10'000;
  spec.preemptible = "always";
  const JobId job = driver.submit(spec);
  const auto first = driver.run_up();
  driver.live(6s);
  const JobId other = displace(driver, job, first[0]);
  const auto between = driver.run_up();
  driver.live(20s);
  CHECK(driver.job_state(job) == queued);
  driver.restart();
  driver.rejoin("a", {driver.state_of(between[0], wire::ProcessPhase::formed)});
  driver.exited(between[0], 0);
  CHECK(driver.job_state(other) == done);
  driver.run_up();
  driver.live(3s);
  CHECK(driver.job_state(job) == running);
  driver.live(1s);
  CHECK(driver.job_state(job) == stopping);
  CHECK(driver.job(job).outcome.message == "limit.time is over");
}

TEST_CASE("cluster: limit.queued counts each wait for room by itself, and no other wait") {
  Driver driver;
  driver.join("a", 1);
  spec::JobSpec spec = run_spec(1);
  spec.limit.queued_ms = 10'000;
  spec.preemptible = "always";
  const JobId job = driver.submit(spec);
  const auto first = driver.run_up();
  driver.live(15s);  // longer than it may wait, but it runs
  const JobId other = displace(driver, job, first[0]);
  const auto between = driver.run_up();
  spec::JobSpec next = spec;
  next.after.any = {other.value};
  const JobId dependent = driver.submit(next);
  next = spec;
  next.delay_ms = 20'000;
  const JobId delayed = driver.submit(next);
  driver.live(9s);
  CHECK(driver.job_state(job) == queued);
  driver.live(1s);
  CHECK(driver.job(job).summary.exit_code == 5);
  driver.live(10s);  // the delay is over, and its wait begins
  driver.live(9s);
  CHECK(driver.job_state(delayed) == queued);
  driver.live(1s);
  CHECK(driver.job(delayed).summary.exit_code == 5);
  CHECK(driver.job_state(dependent) == queued);
  const JobId blocker = driver.submit(urgent_spec());
  driver.exited(between[0], 0);
  CHECK(driver.job_state(blocker) == placed);
  driver.live(9s);
  CHECK(driver.job_state(dependent) == queued);
  driver.live(1s);
  CHECK(driver.job(dependent).summary.exit_code == 5);
}

TEST_CASE("cluster: different hashes of one step fail the job as our own error") {
  Driver driver;
  driver.join("a", 1);
  const JobId job = driver.submit(train_spec(1));
  const auto starts = driver.run_up();
  driver.on(StepHashMismatch{.job = job, .step = 3, .message = "two hashes"});
  driver.exited(starts[0], 0);
  CHECK(driver.job(job).summary.exit_code == 4);
}

TEST_CASE("cluster: the gateway hears of a server while it takes requests") {
  Driver driver;
  driver.join("a", 1);
  const JobId job = driver.submit(serve_spec());
  const auto starts = driver.run_up();
  REQUIRE(driver.gateway().size() == 1);
  CHECK(std::get<OpenServing>(driver.gateway()[0]) ==
        OpenServing{.job = job, .model = "server", .endpoint = "tcp://127.0.0.1:5", .key = "key"});
  driver.exited(starts[0], 0, 9, wire::FailureClass::infrastructure);
  REQUIRE(driver.gateway().size() == 2);
  CHECK(std::get<CloseServing>(driver.gateway()[1]).job == job);
  driver.run_up();
  CHECK(driver.gateway().size() == 3);
}

TEST_CASE("cluster: on a full disk submits are refused and never run, and jobs go on") {
  Driver driver;
  driver.join("a", 2);
  const JobId before = driver.submit(run_spec(1));
  const auto starts = driver.run_up();
  const RequestId unlucky = driver.next_request();
  Decision decision = driver.on(SubmitJob{
      .request = unlucky, .key = "k", .owner = "user", .yaml = "spec", .spec = run_spec(1)});
  const Decision taken_back =
      driver.on(LedgerFailed{.durable_through = decision.number - 1, .message = "no space left"});
  REQUIRE(taken_back.immediate.size() == 1);
  CHECK(std::get<Error>(std::get<Answer>(taken_back.immediate[0]).body).code ==
        ErrorCode::unavailable);
  CHECK(driver.state().jobs().size() == 1);
  CHECK(driver.submit_refused(run_spec(1)).code == ErrorCode::unavailable);
  CHECK(driver.job_state(before) == running);
  driver.on(LedgerRecovered{});
  driver.pass(0s);
  CHECK(driver.take<wire::StartRank>().empty());
  driver.submit(run_spec(1), "k");
  CHECK(driver.take<wire::StartRank>().size() == 1);
}

TEST_CASE("cluster: the history of ended jobs is bounded") {
  ClusterSettings settings = Driver::default_settings();
  settings.ended_jobs_max = 2;
  Driver driver(settings);
  for (int i = 0; i < 4; ++i) {
    const JobId job = driver.submit(run_spec(1));
    driver.on(CancelJob{.request = driver.next_request(), .job = job, .reason = {}});
  }
  REQUIRE(driver.state().jobs().size() == 2);
  CHECK(driver.state().jobs().front().job == JobId{3});
}

TEST_CASE("cluster: of ended arrays so many are kept as their tasks are few, and the newest") {
  ClusterSettings settings = Driver::default_settings();
  settings.ended_tasks_max = 10;
  Driver driver(settings);
  const auto end_array = [&](std::uint32_t count) {
    spec::JobSpec spec = run_spec(1);
    spec.array.count = count;
    const JobId job = driver.submit(spec);
    driver.on(CancelJob{.request = driver.next_request(), .job = job, .reason = {}});
    return job;
  };
  const JobId first = end_array(4);
  const JobId second = end_array(6);
  CHECK(driver.state().knows(first));
  const JobId third = end_array(5);
  CHECK_FALSE(driver.state().knows(first));
  CHECK_FALSE(driver.state().knows(JobId{first.value + 2}));
  CHECK_FALSE(driver.state().knows(second));
  CHECK(driver.state().knows(third));
  const JobId large = end_array(50);
  CHECK_FALSE(driver.state().knows(third));
  CHECK(driver.state().knows(large));
  driver.restart();
  const JobId small = end_array(1);
  CHECK_FALSE(driver.state().knows(large));
  CHECK(driver.state().knows(small));
}

TEST_CASE("cluster: kinds that this version cannot run are refused at once") {
  Driver driver;
  spec::JobSpec spec = run_spec(1);
  spec.kind = spec::JobKind::tune;
  CHECK(driver.submit_refused(spec).code == ErrorCode::unsupported);
  spec = train_spec(1);
  spec.train.resume = "/models/final";
  CHECK(driver.submit_refused(spec).code == ErrorCode::invalid_argument);
}

}  // namespace tutti::coordinator::test
