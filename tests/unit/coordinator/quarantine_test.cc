// Which nodes are set aside, by what, for how long; and whose fault it is that a program cannot be
// started.
#include <catch2/catch.hpp>

#include <algorithm>

#include "coordinator/membership/quarantine.h"
#include "tests/unit/coordinator/cluster_driver.h"

namespace tutti::coordinator::test {

using enum JobState;
using wire::FailureClass;

namespace {

void lose(Driver& driver, const std::string& worker) {
  driver.disconnect(worker);
  driver.pass(400ms);
}

// Comes back as a new process, and is lost again, so many times.
void flap(Driver& driver, const std::string& worker, std::uint32_t times) {
  for (std::uint32_t i = 0; i < times; ++i) {
    lose(driver, worker);
    driver.join(worker, 1);
  }
}

NodeView node(Driver& driver, const std::string& name) {
  const auto nodes = driver.state().nodes();
  const auto at = std::find_if(nodes.begin(), nodes.end(),
                               [&](const NodeView& each) { return each.name == name; });
  REQUIRE(at != nodes.end());
  return *at;
}

bool says(const Driver& driver, EventKind kind, const std::string& text) {
  return std::any_of(driver.events().begin(), driver.events().end(), [&](const Event& event) {
    return event.kind == kind && event.message.find(text) != std::string::npos;
  });
}

std::string worker_of(const Driver& driver, JobId job) {
  const auto processes = driver.job(job).processes;
  REQUIRE_FALSE(processes.empty());
  return processes.back().worker;
}

JobId submit_as(Driver& driver, const std::string& owner, const spec::JobSpec& spec) {
  const RequestId request = driver.next_request();
  driver.on(SubmitJob{.request = request, .key = {}, .owner = owner, .yaml = "spec", .spec = spec});
  driver.pass(0s);
  return std::get<JobAccepted>(*driver.answer(request)).job;
}

wire::StartRank next_start(Driver& driver) {
  const auto starts = driver.take<wire::StartRank>();
  REQUIRE(starts.size() == 1);
  return starts.front();
}

void begun(Driver& driver, const std::string& worker, const wire::StartRank& start) {
  driver.say(worker, wire::RankStarted{.job = start.job,
                                       .generation = start.generation,
                                       .process = start.process,
                                       .pid = 77,
                                       .limits = {}});
  driver.say(worker, wire::GroupFormed{.job = start.job,
                                       .generation = start.generation,
                                       .process = start.process,
                                       .rank = start.rank,
                                       .step = 0,
                                       .copied_bytes = 0,
                                       .serve_endpoint = {},
                                       .serve_key = {},
                                       .model = {}});
}

// As a worker says of a program that is not there.
void refuse(Driver& driver, const wire::StartRank& start) {
  driver.exited(start, 0, 0, FailureClass::user);
}

}  // namespace

TEST_CASE("nodes: one that is lost again and again is set aside until it has stayed for a while") {
  Driver driver;
  driver.join("bad", 1);
  driver.join("good", 1);
  flap(driver, "bad", kLossesMax - 1);
  CHECK(node(driver, "bad").state == "ready");
  CHECK(node(driver, "bad").score_losses == kLossesMax - 1);
  lose(driver, "bad");
  CHECK(node(driver, "bad").state == "lost");
  driver.join("bad", 1);
  const NodeView bad = node(driver, "bad");
  CHECK(bad.state == "quarantined");
  CHECK(bad.score.find("lost 5 times in the last 60 min") != std::string::npos);
  CHECK(bad.score.find("its connection ended") != std::string::npos);
  CHECK(bad.drain_ends == "once it has stayed for 900 s without a loss, or by `tutti undrain bad`");
  CHECK(bad.drain.since_unix_ms != 0);
  CHECK(says(driver, EventKind::quarantined, "takes work again once it has stayed for 900 s"));
  CHECK(driver.state().counters().quarantines_lost == 1);
  driver.beat("good");
  const JobId job = driver.submit(run_spec(1));
  CHECK(worker_of(driver, job) == "good");

  driver.restart();
  driver.rejoin("bad");
  driver.rejoin("good");
  CHECK(node(driver, "bad").state == "quarantined");
  driver.live(898s, {"bad", "good"});
  CHECK(node(driver, "bad").state == "quarantined");
  driver.live(3s, {"bad", "good"});
  CHECK(node(driver, "bad").state == "ready");
  CHECK(says(driver, EventKind::undrained, "bad takes work again: it has stayed for 900 s"));
  // What it did is not forgotten before its time.
  lose(driver, "bad");
  driver.join("bad", 1);
  CHECK(node(driver, "bad").state == "quarantined");
}

TEST_CASE("nodes: an undrain ends a quarantine for losses at once, and forgets them") {
  Driver driver;
  driver.join("bad", 1);
  driver.join("good", 1);
  flap(driver, "bad", kLossesMax);
  REQUIRE(node(driver, "bad").state == "quarantined");
  driver.on(UndrainNode{.request = driver.next_request(), .node = "bad"});
  CHECK(node(driver, "bad").state == "ready");
  CHECK(node(driver, "bad").score.empty());
  flap(driver, "bad", kLossesMax - 1);
  CHECK(node(driver, "bad").state == "ready");
}

TEST_CASE("nodes: a loss counts for an hour, and one that was asked for not at all") {
  Driver driver;
  driver.join("bad", 1);
  driver.join("good", 1);
  flap(driver, "bad", kLossesMax - 1);
  driver.live(3601s, {"bad", "good"});
  flap(driver, "bad", 1);
  CHECK(node(driver, "bad").score_losses == 1);
  CHECK(node(driver, "bad").state == "ready");
  for (std::uint32_t i = 0; i < kLossesMax; ++i) {
    driver.say("good", wire::WorkerLeaving{.deadline_ms = 1000, .reason = "told to"});
    flap(driver, "good", 1);
    driver.on(ExpelWorker{.worker = "good"});
    driver.join("good", 1);
  }
  CHECK(node(driver, "good").score_losses == 0);
  CHECK(node(driver, "good").state == "ready");
}

TEST_CASE("nodes: none is set aside that does not stand out, or that is one of the last") {
  Driver driver;
  driver.join("a", 1);
  flap(driver, "a", 3 * kLossesMax);
  CHECK(node(driver, "a").state == "ready");  // there is no other
  driver.join("b", 1);
  driver.join("c", 1);
  driver.join("d", 1);
  flap(driver, "a", 1);
  CHECK(node(driver, "a").state == "quarantined");
  flap(driver, "b", kLossesMax);
  CHECK(node(driver, "b").state == "quarantined");
  flap(driver, "c", kLossesMax);
  CHECK(node(driver, "c").state == "ready");  // more than half would be set aside

  Driver all;
  all.join("a", 1);
  all.join("b", 1);
  for (std::uint32_t i = 0; i < 2 * kLossesMax; ++i) {
    flap(all, "a", 1);
    flap(all, "b", 1);
  }
  CHECK(node(all, "a").state == "ready");
  CHECK(node(all, "b").state == "ready");
}

TEST_CASE("nodes: one that a job there cannot do without goes on, whatever it does") {
  Driver driver;
  driver.join("bad", 1);
  driver.join("good", 1);
  const JobId job = driver.submit(train_spec(2));
  for (std::uint32_t i = 0; i < 2 * kLossesMax; ++i) {
    for (const auto& start : driver.take<wire::StartRank>()) driver.ready(start, holds(5));
    flap(driver, "bad", 1);
  }
  CHECK(node(driver, "bad").state == "ready");
  CHECK_FALSE(is_terminal(driver.job_state(job)));
}

TEST_CASE("nodes: a program that one cannot start is tried elsewhere, and costs its user nothing") {
  Driver driver;
  driver.join("a", 1);
  driver.join("b", 1);
  const JobId job = driver.submit(run_spec(1));
  REQUIRE(worker_of(driver, job) == "a");
  refuse(driver, next_start(driver));
  CHECK(driver.state().find_job(job)->failures_user == 0);
  CHECK(driver.state().find_job(job)->failures_infrastructure == 0);
  CHECK(node(driver, "a").score.empty());  // it may be the user's mistake
  REQUIRE(worker_of(driver, job) == "b");
  const wire::StartRank start = next_start(driver);
  begun(driver, "b", start);
  CHECK(node(driver, "a").score.find("could not be started there, and was on b") !=
        std::string::npos);
  driver.exited(start, 0);
  CHECK(driver.job_state(job) == done);
}

TEST_CASE("nodes: one that cannot start the programs of three users is set aside for good") {
  Driver driver;
  driver.join("a", 1);
  driver.join("b", 1);
  for (const char* owner : {"ann", "ben", "cat"}) {
    const JobId job = submit_as(driver, owner, run_spec(1));
    REQUIRE(worker_of(driver, job) == "a");
    refuse(driver, next_start(driver));
    const wire::StartRank start = next_start(driver);
    begun(driver, "b", start);
    driver.exited(start, 0);
    CHECK(driver.job_state(job) == done);
  }
  CHECK(node(driver, "a").state == "quarantined");
  CHECK(node(driver, "a").score_users == 3);
  CHECK(node(driver, "a").drain_ends == "by `tutti undrain a`");
  CHECK(driver.state().counters().quarantines == 1);
}

TEST_CASE("nodes: a program that nobody can start is its user's failure, after two nodes or one") {
  Driver driver;
  driver.join("a", 1);
  const JobId alone = driver.submit(run_spec(1));
  refuse(driver, next_start(driver));
  CHECK(driver.job_state(alone) == failed);
  CHECK(driver.job(alone).summary.exit_code == 1);
  driver.join("b", 1);
  driver.join("c", 1);
  const JobId job = driver.submit(run_spec(1));
  refuse(driver, next_start(driver));
  CHECK(driver.job_state(job) != failed);
  refuse(driver, next_start(driver));
  CHECK(driver.job_state(job) == failed);
  CHECK(driver.state().find_job(job)->failures_user == 1);
  for (const char* name : {"a", "b", "c"}) CHECK(node(driver, name).score.empty());
}

TEST_CASE("nodes: where another rank has begun, one that cannot start its program is to blame") {
  Driver driver;
  driver.join("a", 1);
  driver.join("b", 1);
  const JobId job = driver.submit(run_spec(2));
  const auto starts = driver.take<wire::StartRank>();
  REQUIRE(starts.size() == 2);
  for (const auto& start : starts) driver.ready(start);
  REQUIRE(driver.take<wire::FormGroup>().size() == 2);
  begun(driver, "a", starts[0]);
  refuse(driver, starts[1]);
  CHECK(driver.state().find_job(job)->failures_user == 0);
  CHECK(driver.state().find_job(job)->failures_infrastructure == 1);
  CHECK(node(driver, "b").score.find("1 failures of 1 users") != std::string::npos);
}

TEST_CASE("nodes: a job whose other nodes are gone is tried again where it could not start") {
  Driver driver;
  driver.join("a", 1);
  driver.join("b", 1);
  const JobId job = driver.submit(run_spec(1));
  refuse(driver, next_start(driver));
  next_start(driver);
  lose(driver, "b");
  driver.pass(70s);  // what may still run there is over
  driver.join("a", 1);
  driver.pass(1s);
  const auto again = driver.take<wire::StartRank>();
  REQUIRE(again.size() == 1);
  CHECK(worker_of(driver, job) == "a");
}

}  // namespace tutti::coordinator::test
