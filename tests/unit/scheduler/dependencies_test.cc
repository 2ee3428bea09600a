#include <catch2/catch.hpp>

#include "tests/unit/coordinator/cluster_driver.h"

namespace tutti::coordinator::test {

using enum JobState;

namespace {

spec::JobSpec after(std::vector<std::uint64_t> ok, std::vector<std::uint64_t> failed = {},
                    std::vector<std::uint64_t> any = {}) {
  spec::JobSpec spec = run_spec(1);
  spec.after = {.ok = std::move(ok), .failed = std::move(failed), .any = std::move(any)};
  return spec;
}

}  // namespace

TEST_CASE("dependencies: a job waits for the end of others, and ends if that cannot come") {
  Driver driver;
  driver.join("a", 4);
  const JobId first = driver.submit(run_spec(1));
  const auto starts = driver.run_up();
  const JobId ok = driver.submit(after({first.value}));
  const JobId failing = driver.submit(after({}, {first.value}));
  const JobId any = driver.submit(after({}, {}, {first.value}));
  const JobId chain = driver.submit(after({failing.value}));
  CHECK(driver.job(ok).waiting == "waits for job 1 (done)");
  CHECK(driver.state().explain(ok)->reason == ExplainReason::dependency);
  CHECK(driver.take<wire::StartRank>().empty());
  driver.exited(starts[0], 0);
  CHECK(driver.job_state(ok) == placed);
  CHECK(driver.job_state(any) == placed);
  CHECK(driver.job_state(failing) == cancelled);
  CHECK(driver.job(failing).summary.exit_code == 5);
  CHECK(driver.job(failing).outcome.message ==
        "after.failed: job 1 ended done, so this job can never start");
  CHECK(driver.job_state(chain) == cancelled);
}

TEST_CASE("dependencies: only jobs that are remembered can be waited for") {
  ClusterSettings settings = Driver::default_settings();
  settings.ended_jobs_max = 1;
  Driver driver(settings);
  driver.join("a", 1);
  driver.submit(run_spec(1));
  driver.exited(driver.run_up()[0], 0);
  const JobId waits = driver.submit(run_spec(2));
  const JobId second = driver.submit(run_spec(1));
  const JobId third = driver.submit(after({second.value}));
  driver.exited(driver.run_up()[0], 0);
  CHECK(driver.job_state(third) == placed);
  CHECK(driver.submit_refused(after({1})).message ==
        "after.ok: job 1 has been forgotten, and how it ended with it");
  CHECK(driver.submit_refused(after({99})).message == "after.ok: there is no job 99");
  CHECK(driver.job_state(waits) == queued);
}

TEST_CASE("dependencies: what has been met stays met over a restart, though it be forgotten") {
  ClusterSettings settings = Driver::default_settings();
  settings.ended_jobs_max = 1;
  Driver driver(settings);
  driver.join("a", 2);
  const JobId first = driver.submit(run_spec(1));
  const JobId second = driver.submit(run_spec(1));
  const auto starts = driver.run_up();
  const JobId third = driver.submit(after({first.value, second.value}));
  driver.exited(starts[0], 0);
  CHECK(driver.job(third).waiting == "waits for job 2 (done)");
  driver.join("b", 1);
  driver.submit(run_spec(1));
  const auto others = driver.run_up();
  driver.exited(others[0], 0);
  CHECK_FALSE(driver.state().job(first));
  driver.restart();
  CHECK(driver.job_state(third) == queued);
  CHECK(driver.job(third).waiting == "waits for job 2 (done)");
}

TEST_CASE("delay: a job starts when its time has come, not before") {
  Driver driver;
  driver.join("a", 1);
  spec::JobSpec later = run_spec(1);
  later.delay_ms = 1'000;
  const JobId job = driver.submit(later);
  const JobId other = driver.submit(run_spec(1));
  CHECK(driver.job(job).waiting == "starts no earlier than in 1 s");
  CHECK(driver.job_state(other) == placed);
  driver.exited(driver.run_up()[0], 0);
  driver.beat("a");
  driver.pass(900ms);
  CHECK(driver.job_state(job) == queued);
  driver.pass(200ms);
  CHECK(driver.job_state(job) == placed);
}

TEST_CASE("keys: a key stands for its job for seven days, also when the job is forgotten") {
  ClusterSettings settings = Driver::default_settings();
  settings.ended_jobs_max = 1;
  Driver driver(settings);
  driver.join("a", 1);
  const JobId first = driver.submit(run_spec(1), "key");
  driver.exited(driver.run_up()[0], 0);
  driver.submit(run_spec(1));
  driver.exited(driver.run_up()[0], 0);
  REQUIRE_FALSE(driver.state().job(first));
  CHECK(driver.submit(run_spec(1), "key") == first);
  CHECK(driver.submit_refused(run_spec(1), "key", "another spec").code ==
        ErrorCode::already_exists);
  driver.restart();
  CHECK(driver.submit(run_spec(1), "key") == first);
  driver.pass(169h);
  CHECK(driver.submit(run_spec(1), "key") != first);
}

}  // namespace tutti::coordinator::test
