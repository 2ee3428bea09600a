// Running jobs that go on with other ranks: grown into room that nobody waits for, moved off a
// node that is drained.
#include <catch2/catch.hpp>

#include "coordinator/cluster/cluster_state.h"
#include "tests/unit/coordinator/cluster_driver.h"

namespace tutti::coordinator::test {

using enum JobState;

namespace {

spec::JobSpec elastic_spec(std::uint32_t most) {
  spec::JobSpec spec = train_spec(1);
  spec.resources.ranks_max = most;
  return spec;
}

void live_on(Driver& driver, Duration duration) {
  for (Duration passed{}; passed < duration; passed += 500ms) {
    for (const NodeView& node : driver.state().nodes()) driver.beat(node.name);
    driver.pass(500ms);
  }
}

// A job of one rank beside a program; the program ends, and the job's newcomer is ordered.
struct Growing {
  Growing() {
    driver.join("a", 2);
    const JobId other = driver.submit(run_spec(1));
    const auto program = driver.run_up();
    job = driver.submit(elastic_spec(2));
    old = driver.run_up().at(0);
    live_on(driver, 2s);
    CHECK(driver.take<wire::StartRank>().empty());
    driver.exited(program[0], 0);
    REQUIRE(driver.job_state(other) == done);
    driver.take<wire::StopRank>();
    live_on(driver, 31s);
    const auto starts = driver.take<wire::StartRank>();
    REQUIRE(starts.size() == 1);
    newcomer = starts[0];
  }

  Driver driver;
  JobId job;
  wire::StartRank old;
  wire::StartRank newcomer;
};

}  // namespace

TEST_CASE("resize: a job grows at a step that all its ranks have in common, and loses none") {
  Growing grown;
  Driver& driver = grown.driver;
  CHECK(grown.newcomer.generation == Generation{2});
  CHECK(grown.newcomer.rank == 1);
  CHECK(grown.newcomer.size == 2);
  // Until the newcomer is ready the others go on.
  CHECK(driver.take<wire::SetFlags>().empty());
  CHECK(driver.job_state(grown.job) == running);
  driver.ready(grown.newcomer);
  const auto flags = driver.take<wire::SetFlags>();
  REQUIRE(flags.size() == 1);
  CHECK(flags[0].stop);
  CHECK_FALSE(flags[0].save);
  driver.finished(grown.old, Generation{1}, 7);
  const auto regroups = driver.take<wire::Regroup>();
  REQUIRE(regroups.size() == 1);
  CHECK(regroups[0].size == 2);
  driver.ready(grown.old, Generation{2}, holds(7));
  const auto groups = driver.take<wire::FormGroup>();
  REQUIRE(groups.size() == 2);
  CHECK(groups[0].base_step == 7);
  REQUIRE(groups[0].copies.size() == 1);
  CHECK(groups[0].copies[0].from == 0);
  CHECK(groups[0].copies[0].to == 1);
  driver.formed(grown.old, groups[0]);
  driver.formed(grown.newcomer, groups[1]);
  CHECK(driver.job_state(grown.job) == running);
  const JobDetail detail = driver.job(grown.job);
  CHECK(detail.summary.ranks == 2);
  CHECK(detail.recoveries.back().lost_steps == 0);
  CHECK(driver.state().find_job(grown.job)->failures_infrastructure == 0);
}

TEST_CASE("resize: a newcomer that dies leaves the job as it was, and it may grow later") {
  Growing grown;
  Driver& driver = grown.driver;
  driver.exited(grown.newcomer, 0, 9);
  CHECK(driver.take<wire::Regroup>().empty());
  CHECK(driver.job_state(grown.job) == running);
  CHECK(driver.job(grown.job).summary.generation == Generation{1});
  CHECK(driver.state().find_job(grown.job)->failures_infrastructure == 0);
  live_on(driver, 31s);
  CHECK(driver.take<wire::StartRank>().size() == 1);
}

TEST_CASE("resize: a rank that dies while the job grows is replaced, and nobody waits for more") {
  Growing grown;
  Driver& driver = grown.driver;
  driver.ready(grown.newcomer);
  driver.exited(grown.old, 0, 9);
  const auto stops = driver.take<wire::StopRank>();
  REQUIRE(stops.size() == 1);
  CHECK(stops[0].process == grown.newcomer.process);
  const auto starts = driver.take<wire::StartRank>();
  REQUIRE(starts.size() == 1);
  CHECK(starts[0].size == 1);
  CHECK(driver.job_state(grown.job) == recovering);
}

TEST_CASE("resize: who is preempted while it changes its size saves before it leaves") {
  Growing grown;
  Driver& driver = grown.driver;
  driver.ready(grown.newcomer);
  const auto told = driver.take<wire::SetFlags>();
  REQUIRE(told.size() == 1);
  CHECK_FALSE(told[0].save);
  driver.on(CancelJob{
      .request = driver.next_request(), .job = grown.job, .reason = "enough", .save = true});
  driver.exited(grown.newcomer, 0);
  driver.finished(grown.old, Generation{1}, 7);
  // It has stopped without having saved: once more, for that.
  REQUIRE(driver.take<wire::Regroup>().size() == 1);
  driver.ready(grown.old, Generation{2}, holds(7));
  const auto groups = driver.take<wire::FormGroup>();
  REQUIRE(groups.size() == 1);
  const auto flags = driver.take<wire::SetFlags>();
  REQUIRE(flags.size() == 1);
  CHECK(flags[0].save);
  driver.formed(grown.old, groups[0]);
  driver.save({grown.old}, Generation{2}, 8);
  driver.finished(grown.old, Generation{2}, 8);
  driver.take<wire::StopRank>();
  driver.exited(grown.old, 0);
  CHECK(driver.job_state(grown.job) == cancelled);
  CHECK(driver.job(grown.job).checkpoints.back().step == 8);
}

// Drained nodes -----------------------------------------------------------------------------------

namespace {

std::size_t processes_on(Driver& driver, const std::string& node) {
  for (const NodeView& each : driver.state().nodes()) {
    if (each.name == node) return each.processes.size();
  }
  return 0;
}

}  // namespace

TEST_CASE("drain: a server's successor serves elsewhere before the server ends") {
  Driver driver;
  driver.join("a", 1);
  const JobId job = driver.submit(serve_spec());
  const auto old = driver.run_up();
  driver.join("b", 1);
  REQUIRE(driver.gateway().size() == 1);
  driver.drain("a");
  const auto starts = driver.take<wire::StartRank>();
  REQUIRE(starts.size() == 1);
  CHECK(processes_on(driver, "b") == 1);
  CHECK(driver.job_state(job) == running);
  driver.ready(starts[0]);
  const auto groups = driver.take<wire::FormGroup>();
  REQUIRE(groups.size() == 1);
  CHECK(driver.take<wire::StopRank>().empty());
  driver.formed(starts[0], groups[0]);
  CHECK(driver.job_state(job) == running);
  REQUIRE(driver.gateway().size() == 2);  // never closed in between
  CHECK(std::holds_alternative<OpenServing>(driver.gateway()[1]));
  const auto stops = driver.take<wire::StopRank>();
  REQUIRE(stops.size() == 1);
  CHECK(stops[0].process == old[0].process);
  CHECK(stops[0].grace_ms == 59'500);  // what the drain leaves is for what is open there
  driver.exited(old[0], 0);
  CHECK(processes_on(driver, "a") == 0);
  CHECK(driver.job_state(job) == running);
  CHECK(driver.state().find_job(job)->drains == 1);
  CHECK(driver.state().find_job(job)->failures_infrastructure == 0);
}

TEST_CASE("drain: a server for which there is no room elsewhere goes through the queue") {
  Driver driver;
  driver.join("a", 1);
  const JobId job = driver.submit(serve_spec());
  const auto old = driver.run_up();
  driver.drain("a");
  CHECK(driver.take<wire::StopRank>().size() == 1);
  driver.exited(old[0], 0);
  CHECK(driver.job_state(job) == queued);
}

TEST_CASE("drain: of a training job only the ranks that are there move, with nothing lost") {
  Driver driver;
  driver.join("a", 1);
  driver.join("b", 1);
  const JobId job = driver.submit(train_spec(2));
  const auto old = driver.run_up();
  driver.join("c", 1);
  driver.drain("a");
  const auto starts = driver.take<wire::StartRank>();
  REQUIRE(starts.size() == 1);
  CHECK(processes_on(driver, "c") == 1);
  CHECK(driver.take<wire::SetFlags>().empty());
  driver.ready(starts[0]);
  CHECK(driver.take<wire::SetFlags>().size() == 2);
  for (const auto& start : old) driver.finished(start, Generation{1}, 5);
  const auto stops = driver.take<wire::StopRank>();
  REQUIRE(stops.size() == 1);
  CHECK(stops[0].process == old[0].process);
  const auto regroups = driver.take<wire::Regroup>();
  REQUIRE(regroups.size() == 1);
  CHECK(regroups[0].rank == 0);
  driver.exited(old[0], 0);
  driver.ready(old[1], Generation{2}, holds(5));
  const auto groups = driver.take<wire::FormGroup>();
  REQUIRE(groups.size() == 2);
  CHECK(groups[0].base_step == 5);
  CHECK(groups[0].checkpoint.empty());
  driver.formed(old[1], groups[0]);
  driver.formed(starts[0], groups[1]);
  CHECK(driver.job_state(job) == running);
  CHECK(processes_on(driver, "a") == 0);
  CHECK(driver.job(job).recoveries.back().lost_steps == 0);
}

TEST_CASE("drain: a training job may go on with fewer ranks where there is no room") {
  Driver driver;
  driver.join("a", 1);
  driver.join("b", 1);
  const JobId job = driver.submit(elastic_spec(2));
  const auto old = driver.run_up();
  REQUIRE(old.size() == 2);
  driver.drain("a");
  CHECK(driver.take<wire::SetFlags>().size() == 2);
  for (const auto& start : old) driver.finished(start, Generation{1}, 5);
  CHECK(driver.take<wire::StopRank>().size() == 1);
  const auto regroups = driver.take<wire::Regroup>();
  REQUIRE(regroups.size() == 1);
  CHECK(regroups[0].size == 1);
  CHECK(regroups[0].process == old[1].process);
  CHECK(driver.state().find_job(job)->drains == 1);
}

TEST_CASE("drain: a move that comes to nothing leaves by the queue, and in time") {
  Driver driver;
  driver.join("a", 1);
  driver.join("b", 1);
  const JobId job = driver.submit(train_spec(2));
  const auto old = driver.run_up();
  driver.join("c", 1);
  driver.drain("a", 20'000);
  const auto starts = driver.take<wire::StartRank>();
  REQUIRE(starts.size() == 1);
  SECTION("because the newcomer is never ready") { live_on(driver, 17s); }
  SECTION("because the newcomer's node is drained as well") { driver.drain("c", 20'000); }
  const auto stops = driver.take<wire::StopRank>();
  REQUIRE_FALSE(stops.empty());
  CHECK(stops[0].process == starts[0].process);
  driver.exited(starts[0], 0, 9);
  const auto flags = driver.take<wire::SetFlags>();
  REQUIRE(flags.size() == 2);
  CHECK(flags[0].save);
  driver.save(old, Generation{1}, 6);
  for (const auto& start : old) driver.finished(start, Generation{1}, 6);
  for (const auto& start : old) driver.exited(start, 0);
  CHECK(processes_on(driver, "a") == 0);
  CHECK(driver.state().find_job(job)->failures_infrastructure == 0);
}

}  // namespace tutti::coordinator::test
