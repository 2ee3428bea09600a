// What becomes of a job whose lost ranks find no place: on_loss.of_node until on_loss.wait is over,
// on_loss.then after it.
#include <catch2/catch.hpp>

#include "tests/unit/coordinator/cluster_driver.h"

namespace tutti::coordinator::test {

using enum JobState;

namespace {

// A job of two ranks on two nodes of one slot each, the second of which is lost.
struct Bereft {
  Bereft(const char* of_node, const char* then, std::uint32_t ranks_min) {
    driver.join("a", 1);
    driver.join("b", 1);
    spec::JobSpec spec = train_spec(2);
    spec.resources.ranks_min = ranks_min;
    spec.on_loss.of_node = of_node;
    spec.on_loss.then = then;
    spec.on_loss.wait_ms = 10'000;
    job = driver.submit(spec);
    starts = driver.run_up();
    REQUIRE(starts.size() == 2);
    driver.disconnect("b");
    pass(1);
    REQUIRE(driver.job_state(job) == recovering);
  }

  // The first node lives on.
  void pass(int seconds) {
    for (int i = 0; i < seconds; ++i) {
      driver.beat("a");
      driver.pass(1s);
    }
  }
  // The survivor goes on alone, as rank 0 of one.
  void check_alone() {
    const auto regroups = driver.take<wire::Regroup>();
    REQUIRE(regroups.size() == 1);
    CHECK(regroups[0].size == 1);
    driver.ready(starts[0], Generation{2}, holds(6));
    const auto groups = driver.take<wire::FormGroup>();
    REQUIRE(groups.size() == 1);
    driver.formed(starts[0], groups[0]);
    CHECK(driver.job_state(job) == running);
    CHECK(driver.state().find_job(job)->size == 1);
  }
  // The survivor is told to end, and does.
  void end_survivor() {
    REQUIRE(driver.take<wire::StopRank>().size() == 1);
    driver.exited(starts[0], 0, 15);
  }

  Driver driver;
  JobId job;
  std::vector<wire::StartRank> starts;
};

}  // namespace

TEST_CASE("loss policy: then fail ends a job that would be replaced, with the survivor's rank") {
  Bereft at("replace", "fail", 2);
  at.pass(8);
  CHECK(at.driver.job_state(at.job) == recovering);
  CHECK(at.driver.take<wire::StopRank>().empty());
  at.pass(3);
  at.end_survivor();
  CHECK(at.driver.job_state(at.job) == failed);
  CHECK(at.driver.job(at.job).summary.exit_code == 3);
  CHECK(at.driver.job(at.job).outcome.message.find("on_loss.wait") != std::string::npos);
}

TEST_CASE("loss policy: then queue gives up waiting for the node, and the job begins elsewhere") {
  Bereft at("wait", "queue", 2);
  at.driver.join("c", 1);
  at.pass(8);
  CHECK(at.driver.job_state(at.job) == recovering);
  CHECK(at.driver.take<wire::StartRank>().empty());  // it waits for its own node
  at.driver.beat("c");
  at.pass(3);
  at.end_survivor();
  at.driver.join("c", 1);
  const auto starts = at.driver.take<wire::StartRank>();
  CHECK(starts.size() == 2);
  CHECK(at.driver.state().find_job(at.job)->generation == Generation{2});
  CHECK(at.driver.state().find_job(at.job)->failures_user == 0);
}

TEST_CASE("loss policy: then shrink goes on with the survivors once the wait is over") {
  Bereft at("wait", "shrink", 1);
  at.pass(8);
  CHECK(at.driver.take<wire::Regroup>().empty());
  at.pass(3);
  at.check_alone();
  CHECK(at.driver.state().find_job(at.job)->failures_infrastructure == 1);
}

TEST_CASE("loss policy: fewer survivors than ranks.min are too few to shrink to, then or at once") {
  const bool at_once = GENERATE(true, false);
  Bereft at(at_once ? "shrink" : "wait", at_once ? "" : "shrink", 2);
  at.pass(8);
  CHECK(at.driver.job_state(at.job) == recovering);
  CHECK(at.driver.take<wire::Regroup>().empty());
  SECTION("the job queues as a whole when the limit is over") {
    at.pass(3);
    at.end_survivor();
    CHECK(at.driver.job_state(at.job) == queued);
    CHECK(at.driver.take<wire::StartRank>().empty());
  }
  SECTION("the node that comes back in time is in time") {
    at.driver.join("b", 1);
    const auto again = at.driver.take<wire::StartRank>();
    REQUIRE(again.size() == 1);
    CHECK(again[0].generation == Generation{2});
    CHECK(again[0].size == 2);
  }
}

}  // namespace tutti::coordinator::test
