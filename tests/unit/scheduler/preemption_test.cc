#include <catch2/catch.hpp>

#include "coordinator/cluster/release.h"
#include "protocol/base/rng.h"
#include "tests/unit/coordinator/cluster_driver.h"

namespace tutti::coordinator::test {

using enum JobState;

namespace {

spec::JobSpec with(spec::JobSpec spec, std::int32_t priority, const char* preemptible = "always") {
  spec.priority = priority;
  spec.preemptible = preemptible;
  return spec;
}

bool leaves(Driver& driver, JobId job) {
  const JobRecord& record = *driver.state().find_job(job);
  return record.state == stopping || is_releasing(record);
}

}  // namespace

TEST_CASE("preemption: the lowest priority makes room, and of two the one that loses less") {
  Driver driver;
  driver.join("a", 3);
  const JobId old_one = driver.submit(with(run_spec(1), 0));
  driver.run_up();
  driver.beat("a");
  driver.pass(1s);
  const JobId young = driver.submit(with(run_spec(1), 0));
  driver.run_up();
  const JobId dear = driver.submit(with(run_spec(1), 3));
  const auto starts = driver.run_up();
  driver.beat("a");
  const JobId urgent = driver.submit(with(run_spec(1), 5));
  CHECK(leaves(driver, young));
  CHECK_FALSE(leaves(driver, old_one));
  CHECK_FALSE(leaves(driver, dear));
  CHECK(driver.job_state(urgent) == queued);
  CHECK(driver.state().explain(urgent)->preempts == std::vector<JobId>{young});
  static_cast<void>(starts);
}

TEST_CASE("preemption: what leaves goes to who asked, and the place in the queue is kept") {
  Driver driver;
  driver.join("a", 1);
  const JobId victim = driver.submit(with(run_spec(1), 0));
  const auto starts = driver.run_up();
  const JobId peer = driver.submit(with(run_spec(1), 0));
  const JobId urgent = driver.submit(with(run_spec(1), 5));
  REQUIRE(leaves(driver, victim));
  driver.exited(starts[0], 0, 15);
  CHECK(driver.job_state(urgent) == placed);
  CHECK(driver.job_state(victim) == queued);
  CHECK(driver.state().explain(victim)->position == 1);
  CHECK(driver.state().explain(peer)->position == 2);
  CHECK(driver.state().find_job(victim)->failures_user == 0);
}

TEST_CASE("preemption: never of one's own priority, never of who refuses, never in vain") {
  Driver driver;
  driver.join("a", 2);
  const JobId equal = driver.submit(with(run_spec(1), 5));
  const JobId refuses = driver.submit(with(run_spec(1), 0, "never"));
  driver.run_up();
  const JobId urgent = driver.submit(with(run_spec(1), 5));
  CHECK_FALSE(leaves(driver, equal));
  CHECK_FALSE(leaves(driver, refuses));
  const JobId large = driver.submit(with(run_spec(2), 9));
  CHECK_FALSE(leaves(driver, equal));
  CHECK(driver.job_state(urgent) == queued);
  CHECK(driver.job_state(large) == queued);
}

TEST_CASE("preemption: retries.preemptions is a budget, after which a job is left alone") {
  Driver driver;
  driver.join("a", 1);
  spec::JobSpec spec = with(run_spec(1), 0);
  spec.retries.preemptions = 1;
  const JobId victim = driver.submit(spec);
  const auto first = driver.run_up();
  driver.submit(with(run_spec(1), 5));
  REQUIRE(leaves(driver, victim));
  driver.exited(first[0], 0, 15);
  const auto urgent = driver.run_up();
  REQUIRE(urgent.size() == 1);
  driver.exited(urgent[0], 0);
  const auto again = driver.run_up();
  REQUIRE(again.size() == 1);
  CHECK(again[0].job == victim);
  for (int life = 0; life < 2; ++life) {
    const JobId next = driver.submit(with(run_spec(1), 5));
    CHECK_FALSE(leaves(driver, victim));
    CHECK(driver.job_state(next) == queued);
    CHECK(driver.state().explain(next)->preempts.empty());
    driver.restart();
  }
  const JobRecord& record = *driver.state().find_job(victim);
  CHECK(record.preemptions == 1);
  // It is nobody's failure.
  CHECK(record.failures_infrastructure == 0);
  CHECK(record.failures_user == 0);
}

TEST_CASE("preemption: on real nodes; who would not help is left alone") {
  Driver driver;
  driver.join("a", 2);
  driver.join("b", 2);
  const JobId first = driver.submit(with(run_spec(2), 0));
  const JobId second = driver.submit(with(run_spec(2), 1));
  driver.run_up();
  spec::JobSpec wide = with(run_spec(1), 5);
  wide.resources.cores = 4;  // all of one worker
  driver.submit(wide);
  CHECK(leaves(driver, first));
  CHECK_FALSE(leaves(driver, second));
}

TEST_CASE(
    "preemption: a storm of priorities comes to rest, with nothing left to take for the first") {
  Rng rng(9);
  for (int round = 0; round < 20; ++round) {
    Driver driver;
    driver.join("a", 2);
    driver.join("b", 2);
    std::vector<JobId> jobs;
    std::map<ProcessId, wire::StartRank> living;
    for (int i = 0; i < 12; ++i) {
      spec::JobSpec spec = with(run_spec(1 + static_cast<std::uint32_t>(rng.below(2))),
                                static_cast<std::int32_t>(rng.below(4)));
      jobs.push_back(driver.submit(spec));
    }
    // Whoever is asked to leave leaves; nobody else ends. It must come to rest.
    int turns = 0;
    for (; turns < 200; ++turns) {
      for (const auto& start : driver.take<wire::StartRank>()) {
        living[start.process] = start;
        driver.ready(start);
      }
      for (const auto& group : driver.take<wire::FormGroup>()) {
        driver.formed(living.at(group.process), group);
      }
      const auto stops = driver.take<wire::StopRank>();
      for (const auto& stop : stops) {
        const auto at = living.find(stop.process);
        if (at == living.end()) continue;
        const wire::StartRank gone = at->second;
        living.erase(at);
        driver.exited(gone, 0, 15);
      }
      driver.beat("a");
      driver.beat("b");
      driver.pass(100ms);
      if (stops.empty() && living.size() >= 3 && turns > 50) break;
    }
    INFO("round " << round);
    CHECK(turns < 200);
    // The first in the queue could not even be helped by all that may be taken for it.
    for (const JobId job : jobs) {
      const auto explained = driver.state().explain(job);
      if (explained->position != 1) continue;
      const std::int32_t priority = driver.state().find_job(job)->terms.priority;
      std::uint32_t takeable = explained->ranks_free;
      for (const ExplainHolder& holder : explained->holders) {
        if (holder.priority < priority) takeable += holder.slots;
      }
      CHECK(takeable < explained->ranks_min);
    }
  }
}

}  // namespace tutti::coordinator::test
