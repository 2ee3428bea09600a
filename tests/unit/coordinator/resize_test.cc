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

}  // namespace tutti::coordinator::test
