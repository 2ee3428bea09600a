// Backfill, and what it may not do; overdue jobs; gangs that lost ranks; sizes of elastic jobs.
#include <catch2/catch.hpp>

#include "coordinator/scheduler/schedule.h"
#include "tests/unit/coordinator/cluster_driver.h"

namespace tutti::coordinator::test {

using enum JobState;

namespace {

spec::JobSpec limited(std::uint32_t ranks, std::chrono::milliseconds time) {
  spec::JobSpec spec = run_spec(ranks);
  spec.limit.time_ms = static_cast<std::uint64_t>(time.count());
  return spec;
}

}  // namespace

TEST_CASE("backfill: who ends before the head can start goes first, who has no limit does not") {
  Driver driver;
  driver.join("a", 3);
  const JobId busy = driver.submit(limited(2, 600s));
  const auto starts = driver.run_up();
  const JobId head = driver.submit(run_spec(3));
  const JobId endless = driver.submit(run_spec(1));
  CHECK(driver.job_state(head) == queued);
  CHECK(driver.job_state(endless) == queued);
  const JobId long_one = driver.submit(limited(1, 700s));
  CHECK(driver.job_state(long_one) == queued);
  const JobId short_one = driver.submit(limited(1, 300s));
  CHECK(driver.job_state(short_one) == placed);
  const auto explained = driver.state().explain(head);
  CHECK(explained->must_end == std::vector<JobId>{busy});
  CHECK(explained->earliest_unix_ms.has_value());
  driver.exited(driver.run_up()[0], 0);
  driver.exited(starts[0], 0);
  driver.exited(starts[1], 0);
  CHECK(driver.job_state(head) == placed);
  CHECK(driver.job_state(endless) == queued);
}

TEST_CASE("backfill: a training job's limit begins once its ranks have met, not as it is placed") {
  Driver driver;
  driver.join("a", 3);
  driver.submit(limited(2, 600s));
  driver.run_up();
  const JobId head = driver.submit(run_spec(3));
  spec::JobSpec training = train_spec(1);
  // Starting and forming may take 190 s, and ending its grace.
  training.limit.time_ms = 500'000;
  const JobId late = driver.submit(training);
  CHECK(driver.job_state(late) == queued);
  training.limit.time_ms = 300'000;
  const JobId early = driver.submit(training);
  CHECK(driver.job_state(early) == placed);
  CHECK(driver.job_state(head) == queued);
}

TEST_CASE("backfill: without known ends the head gets every slot that it waits for") {
  Driver driver;
  driver.join("a", 2);
  driver.join("b", 2);
  driver.submit(run_spec(1));
  driver.submit(run_spec(1));
  driver.submit(run_spec(1));
  const auto starts = driver.run_up();  // packed: two on one worker, one on the other
  spec::JobSpec both = run_spec(4);
  const JobId head = driver.submit(both);
  const JobId small = driver.submit(limited(1, 1s));
  CHECK(driver.job_state(small) == queued);
  for (std::size_t i = 0; i < 3; ++i) {
    driver.exited(starts[i], 0);
    CHECK(driver.job_state(small) == queued);
  }
  CHECK(driver.job_state(head) == placed);
}

TEST_CASE("backfill: room that the head does not need is for anybody") {
  Driver driver;
  driver.join("a", 3);
  driver.join("b", 1);
  spec::JobSpec wide = run_spec(1);
  wide.resources.cores = 4;  // fits on a only
  driver.submit(run_spec(3));
  driver.run_up();
  const JobId head = driver.submit(wide);
  const JobId small = driver.submit(run_spec(1));
  CHECK(driver.job_state(head) == queued);
  CHECK(driver.job_state(small) == placed);
}

TEST_CASE("queue: more lanes than a pass looks at keep nobody behind them from free slots") {
  ClusterSettings settings = Driver::default_settings();
  settings.quotas.users["user"].running = 1;
  Driver driver(settings);
  driver.join("a", 3);
  driver.submit(run_spec(1));
  driver.run_up();
  for (std::size_t i = 0; i < 2 * kLanesPerPass + 10; ++i) {
    driver.submit(limited(1, std::chrono::minutes(1 + i)));
  }
  const RequestId request = driver.next_request();
  driver.on(
      SubmitJob{.request = request, .key = {}, .owner = "eve", .yaml = "s", .spec = run_spec(1)});
  driver.live(1s);
  CHECK(driver.job_state(std::get<JobAccepted>(*driver.answer(request)).job) == placed);
}

TEST_CASE("queue: after a day a job's turn comes before every priority") {
  Driver driver;
  driver.join("a", 1);
  const JobId busy = driver.submit(run_spec(1));
  const auto starts = driver.run_up();
  const JobId humble = driver.submit(run_spec(1));
  spec::JobSpec urgent = run_spec(1);
  urgent.priority = 100;
  const JobId early = driver.submit(urgent);
  CHECK(driver.state().explain(humble)->position == 2);
  // The worker stays connected all along.
  for (int hour = 0; hour < 25; ++hour) {
    driver.rejoin("a", {driver.state_of(starts[0], wire::ProcessPhase::formed)});
    driver.pass(4s);
    driver.stand_still(1h);
  }
  driver.rejoin("a", {driver.state_of(starts[0], wire::ProcessPhase::formed)});
  const JobId late = driver.submit(urgent);
  CHECK(driver.state().explain(late)->position == 3);
  CHECK(driver.state().explain(early)->position == 2);
  CHECK(driver.state().explain(humble)->position == 1);
  driver.exited(starts[0], 0);
  CHECK(driver.job_state(busy) == done);
  CHECK(driver.job_state(humble) == placed);
}

TEST_CASE("gangs: what a broken gang can use again is kept for it, before newcomers") {
  Driver driver;
  driver.join("a", 1);
  driver.join("b", 1);
  driver.join("c", 1);
  const JobId gang = driver.submit(train_spec(3));
  const auto starts = driver.run_up();
  const JobId newcomer = driver.submit(run_spec(1));
  driver.disconnect("b");
  driver.pass(400ms);
  CHECK(driver.job_state(gang) == recovering);
  driver.exited(starts[0], 0, 9);
  CHECK(driver.job_state(newcomer) == queued);
  CHECK(driver.state().explain(newcomer)->workers.front().why ==
        "what is free there is held for a job before this one");
  driver.join("b", 1);
  CHECK(driver.take<wire::StartRank>().size() == 2);
  CHECK(driver.job_state(newcomer) == queued);
}

TEST_CASE("gangs: what a broken gang lacks is not kept for who waits for that gang to end") {
  Driver driver;
  driver.join("a", 2);
  driver.submit(train_spec(2));
  const auto starts = driver.run_up();
  driver.join("b", 1);
  const JobId head = driver.submit(run_spec(3));
  const JobId behind = driver.submit(limited(1, 600s));
  REQUIRE(driver.job_state(behind) == queued);  // b is kept for the head
  driver.broken(starts[0], Generation{1}, 1, "timeout", holds(3));
  driver.pass(300ms);
  driver.beat("a");
  driver.ready(starts[0], Generation{2}, holds(3));
  driver.live(25s, {"a", "b"});
  REQUIRE(driver.take<wire::StopRank>().size() == 1);
  driver.exited(starts[1], 0, 9);
  CHECK(driver.take<wire::StartRank>().size() == 1);
  CHECK(driver.job_state(head) == queued);
}

TEST_CASE("elastic: a train job starts with what there is, a program waits a while for all") {
  Driver driver;
  driver.join("a", 2);
  driver.submit(run_spec(1));
  driver.run_up();
  spec::JobSpec train = train_spec(1);
  train.resources.ranks_max = 2;
  const JobId job = driver.submit(train);
  CHECK(driver.take<wire::StartRank>().size() == 1);
  CHECK(driver.job_state(job) == placed);
  driver.join("b", 1);
  spec::JobSpec program = run_spec(1);
  program.resources.ranks_max = 2;
  const JobId patient = driver.submit(program);
  CHECK(driver.job_state(patient) == queued);
  driver.live(11s, {"a", "b"});
  CHECK(driver.job_state(patient) == placed);
  CHECK(driver.take<wire::StartRank>().size() == 1);
}

}  // namespace tutti::coordinator::test
