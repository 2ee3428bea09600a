#include <catch2/catch.hpp>

#include "coordinator/scheduler/arrays.h"
#include "tests/unit/coordinator/cluster_driver.h"

namespace tutti::coordinator::test {

using enum JobState;

namespace {

spec::JobSpec array_spec(std::uint32_t count, std::uint32_t at_once = 0) {
  spec::JobSpec spec = run_spec(1);
  spec.array = {.count = count, .at_once = at_once};
  return spec;
}

JobId task(JobId array, std::uint32_t index) { return JobId{array.value + 1 + index}; }

// Runs everything that has started to its end with the code.
std::size_t end_all(Driver& driver, std::int32_t code = 0) {
  const auto starts = driver.run_up();
  for (const auto& start : starts) driver.exited(start, code);
  return starts.size();
}

}  // namespace

TEST_CASE("arrays: tasks start as there is room, at most so many at once, each with its index") {
  Driver driver;
  driver.join("a", 4);
  const JobId array = driver.submit(array_spec(5, 2), {}, "command: [\"x${index}\", \"${index}\"]");
  auto starts = driver.run_up();
  REQUIRE(starts.size() == 2);
  CHECK(starts[0].job == task(array, 0));
  CHECK(starts[0].spec == "command: [\"x0\", \"0\"]");
  CHECK(starts[1].spec == "command: [\"x1\", \"1\"]");
  CHECK(starts[1].array_index == 1);
  CHECK(starts[1].folder == "/state/jobs/" + to_string(array) + "/1");
  CHECK(driver.job_state(array) == running);
  CHECK(driver.job(array).waiting == "2 of its tasks run, as many as array.at_once allows");
  driver.exited(starts[0], 0);
  const TaskCounts counts = driver.job(array).summary.tasks;
  CHECK(counts.waiting == 2);
  CHECK(counts.active == 2);
  CHECK(counts.done == 1);
  driver.exited(starts[1], 0);
  for (int i = 0; i < 3; ++i) end_all(driver);
  CHECK(driver.job_state(array) == done);
  CHECK(driver.job(array).summary.exit_code == 0);
  CHECK(driver.job(array).summary.tasks.done == 5);
  CHECK(driver.state().jobs().size() == 1);
}

TEST_CASE("arrays: a failed task fails the array at its end, and the view says which") {
  Driver driver;
  driver.join("a", 1);
  const JobId array = driver.submit(array_spec(3));
  end_all(driver);
  end_all(driver, 7);
  CHECK(driver.job_state(array) == running);
  end_all(driver);
  const JobDetail detail = driver.job(array);
  CHECK(detail.summary.state == failed);
  CHECK(detail.summary.exit_code == 1);
  CHECK(detail.outcome.message.find("1 of 3 tasks failed; the first was task 1: ") == 0);
  REQUIRE(detail.tasks.size() == 1);
  CHECK(detail.tasks[0].index == 1);
  CHECK(detail.tasks[0].state == TaskState::failed);
  const std::vector<TaskView> all = driver.state().tasks(array);
  REQUIRE(all.size() == 3);
  CHECK(all[0].state == TaskState::done);
  CHECK(all[1].job == task(array, 1));
  CHECK(driver.job_state(task(array, 1)) == failed);
  CHECK(driver.job_state(task(array, 2)) == done);
  CHECK(driver.job(task(array, 1)).summary.name == "program.1");
  CHECK_FALSE(driver.state().job(task(array, 3)));
}

TEST_CASE("arrays: one task can be cancelled, waiting or running, and the whole array") {
  Driver driver;
  driver.join("a", 1);
  const JobId array = driver.submit(array_spec(4));
  const auto starts = driver.run_up();
  const auto cancel = [&](JobId job) {
    driver.on(CancelJob{.request = driver.next_request(), .job = job, .reason = "enough"});
    driver.pass(0s);
  };
  cancel(task(array, 2));
  CHECK(driver.job(array).summary.tasks.cancelled == 1);
  CHECK(driver.job(task(array, 2)).outcome.message == "cancelled: enough");
  cancel(starts[0].job);
  driver.exited(starts[0], 0, 15);
  CHECK(driver.job(array).summary.tasks.cancelled == 2);
  const auto next = driver.run_up();
  REQUIRE(next.size() == 1);
  CHECK(next[0].job == task(array, 1));
  cancel(array);
  CHECK(driver.job_state(array) == stopping);
  CHECK(driver.take<wire::StopRank>().size() == 2);
  driver.exited(next[0], 0, 15);
  CHECK(driver.job_state(array) == cancelled);
  CHECK(driver.job(array).summary.tasks.cancelled == 4);
}

TEST_CASE("arrays: a successor goes on with the tasks that are left, from the same state") {
  Driver driver;
  driver.join("a", 2);
  const JobId array = driver.submit(array_spec(5));
  const auto starts = driver.run_up();
  driver.exited(starts[0], 0);
  const auto before = driver.state().snapshot();
  driver.restart();
  CHECK(driver.state().snapshot() == before);
  CHECK(driver.job(array).summary.tasks.done == 1);
  CHECK(driver.job(array).summary.tasks.active == 2);
  Durable restored;
  restored.restore(before);
  CHECK(restored.snapshot() == before);
}

TEST_CASE("arrays: a task that is lost with its node starts again before the waiting ones") {
  Driver driver;
  driver.join("a", 1);
  const JobId array = driver.submit(array_spec(3));
  driver.run_up();
  driver.disconnect("a");
  driver.join("a", 1);  // anew: its programs are gone
  const auto again = driver.run_up();
  REQUIRE(again.size() == 1);
  CHECK(again[0].job == task(array, 0));
  CHECK(again[0].generation == Generation{2});
}

TEST_CASE("arrays: ten thousand tasks are one record, and leave nothing but it") {
  Driver driver;
  driver.join("a", 2);
  const JobId array = driver.submit(array_spec(10'000));
  CHECK(driver.state().snapshot().jobs.size() == 3);
  CHECK(driver.submit(run_spec(1)) == JobId{array.value + 10'001});
  for (int i = 0; i < 50; ++i) end_all(driver);
  CHECK(driver.state().snapshot().jobs.size() == 4);
  CHECK(driver.job(array).summary.tasks.done == 100);
  CHECK(driver.state().knows(task(array, 9'999)));
  CHECK_FALSE(driver.state().knows(JobId{array.value + 10'002}));
}

}  // namespace tutti::coordinator::test
