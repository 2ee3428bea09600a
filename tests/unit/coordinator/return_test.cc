// A worker that comes back after its lease, whose ranks never stopped.
#include <catch2/catch.hpp>

#include <algorithm>

#include "coordinator/cluster/cluster_state.h"
#include "tests/unit/coordinator/cluster_driver.h"

namespace tutti::coordinator::test {

using enum JobState;
using Phase = wire::ProcessPhase;

namespace {

void lose(Driver& driver, const std::string& worker) {
  driver.disconnect(worker);
  driver.pass(300ms);
}

std::size_t count(const Driver& driver, EventKind kind) {
  return static_cast<std::size_t>(
      std::count_if(driver.events().begin(), driver.events().end(),
                    [&](const Event& event) { return event.kind == kind; }));
}

spec::JobSpec waiting_spec(std::uint32_t ranks) {
  spec::JobSpec spec = train_spec(ranks);
  spec.on_loss.of_node = "wait";
  return spec;
}

}  // namespace

TEST_CASE("return: ranks whose job was not replaced go on from the step that they hold") {
  Driver driver;
  driver.join("a", 1);
  const JobId job = driver.submit(train_spec(1));
  const auto starts = driver.run_up();
  lose(driver, "a");
  REQUIRE(driver.job_state(job) == recovering);
  const bool restarted = GENERATE(false, true);
  if (restarted) driver.restart();
  driver.rejoin("a", {driver.state_of(starts[0], Phase::formed)});
  CHECK(driver.take<wire::StopRank>().empty());
  CHECK(driver.take<wire::StartRank>().empty());
  CHECK(driver.happened(job, EventKind::rank_returned));
  const auto regroups = driver.take<wire::Regroup>();
  REQUIRE(regroups.size() == 1);
  CHECK(regroups[0].process == starts[0].process);
  CHECK(regroups[0].generation == Generation{2});
  driver.ready(starts[0], Generation{2}, holds(40));
  const auto groups = driver.take<wire::FormGroup>();
  REQUIRE(groups.size() == 1);
  CHECK(groups[0].base_step == 40);
  driver.formed(starts[0], groups[0]);
  CHECK(driver.job_state(job) == running);
  CHECK(driver.job(job).recoveries.back().lost_steps == 0);
  CHECK(driver.state().find_job(job)->failures_infrastructure == 1);
  CHECK(driver.job(job).processes.size() == 1);
}

TEST_CASE("return: a job that waits for its node goes on when that one rank is back") {
  Driver driver;
  driver.join("a", 1);
  driver.join("b", 1);
  const JobId job = driver.submit(waiting_spec(2));
  const auto starts = driver.run_up();
  driver.join("c", 1);
  lose(driver, "b");
  CHECK(driver.take<wire::AbortGeneration>().size() == 1);
  driver.broken(starts[0], Generation{1}, 1, "its peer is gone", holds(8));
  driver.pass(1s);
  CHECK(driver.take<wire::StartRank>().empty());
  wire::ProcessState state = driver.state_of(starts[1], Phase::broken);
  state.held = holds(7, 8);
  driver.rejoin("b", {state});
  CHECK(driver.take<wire::AbortGeneration>().size() <= 1);
  const auto regroups = driver.take<wire::Regroup>();
  REQUIRE(regroups.size() == 2);
  driver.ready(starts[0], Generation{2}, holds(8));
  driver.ready(starts[1], Generation{2}, holds(7, 8));
  const auto groups = driver.take<wire::FormGroup>();
  REQUIRE(groups.size() == 2);
  CHECK(groups[0].base_step == 8);
  CHECK(groups[0].copies.empty());
  CHECK(driver.job_state(job) == recovering);
}

TEST_CASE("return: who was replaced meanwhile, or belongs to an older generation, is ended") {
  Driver driver;
  driver.join("a", 1);
  const JobId job = driver.submit(train_spec(1));
  const auto starts = driver.run_up();
  driver.join("b", 1);
  lose(driver, "a");
  const auto replaced = driver.take<wire::StartRank>();
  REQUIRE(replaced.size() == 1);
  SECTION("while the other one runs") {
    driver.rejoin("a", {driver.state_of(starts[0], Phase::formed)});
  }
  SECTION("also when the other one is lost as well") {
    lose(driver, "b");
    driver.rejoin("a", {driver.state_of(starts[0], Phase::formed)});
  }
  const auto stops = driver.take<wire::StopRank>();
  REQUIRE(stops.size() == 1);
  CHECK(stops[0].process == starts[0].process);
  CHECK_FALSE(driver.happened(job, EventKind::rank_returned));
}

TEST_CASE("return: a server that nobody could reach is started anew") {
  Driver driver;
  driver.join("a", 1);
  const JobId job = driver.submit(serve_spec());
  const auto starts = driver.run_up();
  lose(driver, "a");
  driver.rejoin("a", {driver.state_of(starts[0], Phase::formed)});
  CHECK(driver.take<wire::StopRank>().size() == 1);
  driver.exited(starts[0], 0);
  CHECK(driver.take<wire::StartRank>().size() == 1);
  CHECK(driver.job_state(job) == recovering);
}

TEST_CASE("return: a worker whose key was revoked is not let in again as the same process") {
  Driver driver;
  driver.join("a", 1);
  const JobId job = driver.submit(train_spec(1));
  driver.run_up();
  driver.on(ExpelWorker{.worker = "a"});
  CHECK(driver.job_state(job) == recovering);
  // Its connection ended before it read that it is to go: it looks for us once more.
  const std::size_t joined = count(driver, EventKind::worker_joined);
  driver.rejoin("a");
  CHECK(count(driver, EventKind::worker_joined) == joined);
  CHECK(driver.take<wire::StartRank>().empty());
  // Started again, with a token that is still good, it is.
  driver.join("a", 1);
  CHECK(count(driver, EventKind::worker_joined) == joined + 1);
  CHECK(driver.take<wire::StartRank>().size() == 1);
  CHECK(driver.state().find_job(job)->failures_infrastructure == 1);
}

}  // namespace tutti::coordinator::test
