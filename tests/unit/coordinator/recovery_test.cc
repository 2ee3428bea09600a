#include <catch2/catch.hpp>

#include "tests/unit/coordinator/cluster_driver.h"

namespace tutti::coordinator::test {

using enum JobState;
using wire::FailureClass;

namespace {}  // namespace

TEST_CASE("recovery: a dead rank is replaced, and the newcomer copies from the survivor") {
  Driver driver;
  driver.join("a", 2);
  const JobId job = driver.submit(train_spec(2));
  const auto starts = driver.run_up();
  driver.on(StepsRecorded{.job = job, .step = 7});
  driver.exited(starts[1], 0, 9, FailureClass::infrastructure);
  CHECK(driver.job_state(job) == recovering);
  // Its slot is free already, so the next generation is journalled in the same breath.
  const auto regroups = driver.take<wire::Regroup>();
  const auto replacements = driver.take<wire::StartRank>();
  REQUIRE(regroups.size() == 1);
  REQUIRE(replacements.size() == 1);
  CHECK(regroups[0].process == starts[0].process);
  CHECK(replacements[0].rank == 1);
  CHECK(replacements[0].generation == Generation{2});
  driver.pass(20ms);
  driver.ready(starts[0], Generation{2}, holds(7));
  CHECK(driver.take<wire::FormGroup>().empty());
  driver.pass(10ms);
  driver.ready(replacements[0]);
  const auto groups = driver.take<wire::FormGroup>();
  REQUIRE(groups.size() == 2);
  CHECK(groups[0].base_step == 7);
  CHECK(groups[0].copies == std::vector<wire::StateCopy>{{0, 1}});
  CHECK(groups[0].secret == groups[1].secret);
  CHECK(groups[0].checkpoint.empty());
  driver.pass(30ms);
  driver.formed(starts[0], groups[0]);
  driver.formed(replacements[0], groups[1]);
  CHECK(driver.job_state(job) == running);
  driver.pass(5ms);
  driver.say("a",
             wire::FirstStepDone{
                 .job = job, .generation = Generation{2}, .process = starts[0].process, .step = 8});
  REQUIRE(driver.job(job).recoveries.size() == 1);
  const Recovery recovery = driver.job(job).recoveries[0];
  CHECK(recovery.generation == Generation{2});
  CHECK(recovery.aborted_ms == 20);
  CHECK(recovery.regrouped_ms == 30);
  CHECK(recovery.copied_ms == 60);
  CHECK(recovery.first_step_ms == 65);
  CHECK(recovery.from_step == 7);
  CHECK(recovery.lost_steps == 0);
  CHECK(driver.happened(job, EventKind::recovered));
}

TEST_CASE(
    "recovery: a survivor that holds the gradients finishes the step that another completed") {
  Driver driver;
  driver.join("a", 3);
  driver.submit(train_spec(3));
  const auto starts = driver.run_up();
  driver.exited(starts[2], 0, 9, FailureClass::infrastructure);
  const auto replacement = driver.take<wire::StartRank>();
  driver.ready(starts[0], Generation{2}, holds(8));
  driver.ready(starts[1], Generation{2}, holds(7, 8));
  driver.ready(replacement[0]);
  const auto group = driver.take<wire::FormGroup>()[0];
  CHECK(group.base_step == 8);
  CHECK(group.copies == std::vector<wire::StateCopy>{{0, 2}});
}

TEST_CASE("recovery: without a completed step all stay, and who is behind copies") {
  Driver driver;
  driver.join("a", 4);
  driver.submit(train_spec(4));
  const auto starts = driver.run_up();
  driver.exited(starts[3], 0, 9, FailureClass::infrastructure);
  const auto replacement = driver.take<wire::StartRank>();
  driver.ready(starts[0], Generation{2}, holds(7, 8));
  driver.ready(starts[1], Generation{2}, holds(7, 8));
  driver.ready(starts[2], Generation{2}, holds(5));
  driver.ready(replacement[0]);
  const auto group = driver.take<wire::FormGroup>()[0];
  CHECK(group.base_step == 7);
  CHECK(group.copies == std::vector<wire::StateCopy>{{0, 2}, {1, 3}});
}

TEST_CASE("recovery: with no survivor it goes back to the checkpoint, and says what that cost") {
  Driver driver;
  driver.join("a", 1);
  const JobId job = driver.submit(train_spec(1));
  const auto starts = driver.run_up();
  driver.save(starts, Generation{1}, 40);
  driver.on(StepsRecorded{.job = job, .step = 57});
  driver.exited(starts[0], 0, 9, FailureClass::infrastructure);
  const auto replacement = driver.take<wire::StartRank>();
  driver.ready(replacement[0]);
  const auto group = driver.take<wire::FormGroup>()[0];
  CHECK(group.base_step == 40);
  CHECK(group.checkpoint == "step-40");
  CHECK(group.copies.empty());
  CHECK(driver.job(job).recoveries[0].lost_steps == 17);
}

TEST_CASE(
    "recovery: a broken group is aborted everywhere in one message, and waits for the death") {
  Driver driver;
  driver.join("a", 3);
  driver.submit(train_spec(3));
  const auto starts = driver.run_up();
  driver.broken(starts[0], Generation{1}, 2, "peer 2 is gone", holds(3));
  CHECK(driver.take<wire::AbortGeneration>().size() == 3);
  CHECK(driver.take<wire::Regroup>().empty());
  driver.exited(starts[2], 0, 9, FailureClass::infrastructure);
  CHECK(driver.take<wire::Regroup>().size() == 2);
  CHECK(driver.take<wire::StartRank>().size() == 1);
}

TEST_CASE("recovery: a group that breaks without a death regroups after a moment") {
  Driver driver;
  driver.join("a", 2);
  driver.submit(train_spec(2));
  const auto starts = driver.run_up();
  driver.broken(starts[0], Generation{1}, 1, "timeout", holds(3));
  driver.pass(300ms);
  CHECK(driver.take<wire::Regroup>().size() == 2);
  // The hung one does not answer: it is ended and replaced, the other one keeps its state.
  driver.beat("a");
  driver.ready(starts[0], Generation{2}, holds(3));
  for (int i = 0; i < 25; ++i) {
    driver.pass(1s);
    driver.beat("a");
  }
  const auto stops = driver.take<wire::StopRank>();
  REQUIRE(stops.size() == 1);
  CHECK(stops[0].process == starts[1].process);
  driver.exited(starts[1], 0, 9);
  CHECK(driver.take<wire::StartRank>().size() == 1);
  CHECK(driver.take<wire::Regroup>().size() == 1);
}

TEST_CASE("recovery: groups that break again and again without a death use up the budget") {
  Driver driver;
  driver.join("a", 2);
  spec::JobSpec spec = train_spec(2);
  spec.retries.infrastructure = 1;
  const JobId job = driver.submit(spec);
  const auto starts = driver.run_up();
  for (const Generation generation : {Generation{1}, Generation{2}}) {
    CHECK(driver.job_state(job) != stopping);
    driver.broken(starts[0], generation, 1, "lengths do not match", holds(3));
    driver.pass(300ms);
  }
  CHECK(driver.job_state(job) == stopping);
  for (const auto& start : starts) driver.exited(start, 0);
  CHECK(driver.job(job).summary.exit_code == 3);
}

TEST_CASE("recovery: a rank that stands still is ended in seconds once its pace is known") {
  Driver driver;
  driver.join("a", 2);
  const JobId job = driver.submit(train_spec(2));
  const auto starts = driver.run_up();
  std::uint64_t collective = 0;
  const auto beat = [&](std::uint64_t ahead) {
    std::vector<wire::RankProgress> progress;
    for (const auto& start : starts) {
      progress.push_back({.job = job,
                          .generation = Generation{1},
                          .process = start.process,
                          .phase = "exchange",
                          .step = 1,
                          .collective = collective + (start.rank == 0 ? ahead : 0),
                          .compute_us = 0,
                          .beat = 0});
    }
    driver.beat("a", progress);
    driver.pass(500ms);
  };
  for (int i = 0; i < 50; ++i) {
    ++collective;
    beat(0);
  }
  for (int i = 0; i < 58; ++i) beat(1);
  CHECK(driver.orders_left() == 0);
  for (int i = 0; i < 4; ++i) beat(1);
  const auto stops = driver.take<wire::StopRank>();
  REQUIRE(stops.size() == 1);
  CHECK(stops[0].process == starts[1].process);
  CHECK(driver.take<wire::AbortGeneration>().size() == 1);
}

TEST_CASE("recovery: a coordinator that stood still itself blames nobody for it") {
  Driver driver;
  driver.join("a", 2);
  driver.submit(train_spec(2));
  driver.run_up();
  driver.stand_still(60s);
  CHECK(driver.state().nodes()[0].state == "ready");
  driver.pass(5s);
  CHECK(driver.state().nodes()[0].state == "lost");
}

TEST_CASE("recovery: losses in the middle of a recovery are part of it") {
  Driver driver;
  driver.join("a", 3);
  const JobId job = driver.submit(train_spec(3));
  const auto starts = driver.run_up();
  driver.exited(starts[2], 0, 9, FailureClass::infrastructure);
  driver.ready(starts[0], Generation{2}, holds(7));
  driver.exited(starts[1], 0, 9, FailureClass::infrastructure);
  CHECK(driver.job(job).summary.generation == Generation{3});
  CHECK(driver.job_state(job) == recovering);
  CHECK(driver.job(job).recoveries.size() == 1);
  const auto replacements = driver.take<wire::StartRank>();
  REQUIRE(replacements.size() == 2);
  driver.ready(starts[0], Generation{3}, holds(7));
  for (const auto& each : replacements) driver.ready(each, Generation{3}, {});
  CHECK(driver.take<wire::FormGroup>().size() == 3);
  // What is said of an old generation changes nothing.
  driver.ready(starts[0], Generation{2}, holds(6));
  CHECK(driver.state().counters().stale_reports == 1);
}

TEST_CASE("recovery: a silent worker is lost after its lease, and fenced when it is back") {
  Driver driver;
  driver.join("a", 1);
  driver.join("b", 1);
  const JobId job = driver.submit(train_spec(1));
  const auto starts = driver.run_up();
  for (int i = 0; i < 6; ++i) {
    driver.pass(1s);
    driver.beat("b");
  }
  CHECK(driver.state().nodes()[0].state == "lost");
  CHECK(driver.job_state(job) == recovering);
  const auto replacement = driver.take<wire::StartRank>();
  REQUIRE(replacement.size() == 1);
  CHECK(replacement[0].generation == Generation{2});
  driver.rejoin("a", {driver.state_of(starts[0], wire::ProcessPhase::formed)});
  const auto stops = driver.take<wire::StopRank>();
  REQUIRE(stops.size() == 1);
  CHECK(stops[0].process == starts[0].process);
  CHECK(driver.state().nodes()[0].free_slots == 0);
  driver.exited(starts[0], 0);
  CHECK(driver.state().nodes()[0].free_slots == 1);
  CHECK(driver.job(job).summary.generation == Generation{2});
}

TEST_CASE("recovery: the end of a liveness connection means lost unless a Hello follows") {
  Driver driver;
  driver.join("a", 1);
  driver.submit(train_spec(1));
  const auto starts = driver.run_up();
  driver.disconnect("a");
  driver.pass(200ms);
  driver.rejoin("a", {driver.state_of(starts[0], wire::ProcessPhase::formed)});
  driver.pass(1s);
  CHECK(driver.state().nodes()[0].state == "ready");
  driver.disconnect("a");
  driver.pass(300ms);
  CHECK(driver.state().nodes()[0].state == "lost");
}

TEST_CASE(
    "recovery: programs of a lost worker hold up their successors until they are surely gone") {
  Driver driver;
  driver.join("a", 1);
  driver.join("b", 1);
  const JobId job = driver.submit(run_spec(1));
  driver.run_up();
  const auto wait = [&](int seconds) {
    for (int i = 0; i < seconds; ++i) {
      driver.pass(1s);
      driver.beat("b");
    }
  };
  wait(60);
  CHECK(driver.job_state(job) == queued);
  CHECK(driver.take<wire::StartRank>().empty());
  wait(9);
  CHECK(driver.take<wire::StartRank>().size() == 1);
}

TEST_CASE("recovery: on_loss decides about a lost node") {
  Driver driver;
  driver.join("a", 1);
  spec::JobSpec spec = train_spec(1);
  SECTION("fail") {
    spec.on_loss.of_node = "fail";
    const JobId job = driver.submit(spec);
    driver.run_up();
    driver.pass(5s);
    CHECK(driver.job(job).summary.exit_code == 3);
  }
  SECTION("wait, and then fail") {
    spec.on_loss.of_node = "wait";
    spec.on_loss.wait_ms = 10'000;
    const JobId job = driver.submit(spec);
    driver.run_up();
    driver.join("b", 1);
    driver.pass(6s);
    driver.join("b", 1);
    CHECK(driver.job_state(job) == recovering);
    CHECK(driver.take<wire::StartRank>().empty());
    driver.pass(10s);
    CHECK(driver.job(job).summary.exit_code == 3);
  }
  SECTION("replace, and queue again where there is no slot") {
    spec.on_loss.wait_ms = 10'000;
    const JobId job = driver.submit(spec);
    driver.run_up();
    driver.pass(16s);
    CHECK(driver.job_state(job) == queued);
    driver.join("c", 1);
    CHECK(driver.take<wire::StartRank>().size() == 1);
  }
}

TEST_CASE("recovery: retries.infrastructure is a budget") {
  Driver driver;
  driver.join("a", 1);
  spec::JobSpec spec = train_spec(1);
  spec.retries.infrastructure = 1;
  const JobId job = driver.submit(spec);
  driver.exited(driver.run_up()[0], 0, 9, FailureClass::infrastructure);
  driver.exited(driver.run_up()[0], 0, 9, FailureClass::infrastructure);
  CHECK(driver.job_state(job) == failed);
  CHECK(driver.job(job).summary.exit_code == 3);
}

TEST_CASE("recovery: a restarted coordinator goes on with what lives") {
  Driver driver;
  driver.join("a", 2);
  const JobId job = driver.submit(train_spec(2));
  const auto starts = driver.run_up();
  driver.restart();
  CHECK(driver.job_state(job) == running);
  CHECK(driver.state().nodes()[0].state == "expected");
  driver.pass(4s);
  driver.rejoin("a", {driver.state_of(starts[0], wire::ProcessPhase::formed),
                      driver.state_of(starts[1], wire::ProcessPhase::formed)});
  CHECK(driver.orders_left() == 0);
  for (const auto& start : starts) driver.finished(start, Generation{1}, 100);
  CHECK(driver.take<wire::StopRank>().size() == 2);
  CHECK(driver.job(job).summary.restarts == 0);
}

TEST_CASE("recovery: a restarted coordinator gives the orders that were not taken") {
  Driver driver;
  driver.join("a", 2);
  driver.submit(train_spec(2));
  const auto starts = driver.take<wire::StartRank>();
  driver.restart();
  // One of two was begun before the coordinator died.
  driver.rejoin("a", {driver.state_of(starts[0], wire::ProcessPhase::ready)});
  const auto again = driver.take<wire::StartRank>();
  REQUIRE(again.size() == 1);
  CHECK(again[0].process == starts[1].process);
  driver.ready(again[0]);
  CHECK(driver.take<wire::FormGroup>().size() == 2);
}

TEST_CASE("recovery: a Hello that was overtaken is ignored") {
  Driver driver;
  driver.join("a", 1);
  driver.submit(train_spec(1));
  const auto starts = driver.run_up();
  const std::uint64_t stale = driver.state().counters().stale_frames;
  wire::Hello old;
  old.worker = "a";
  old.incarnation = std::get<GenerationStarted>(
                        *std::find_if(driver.facts().begin(), driver.facts().end(),
                                      [](const Fact& fact) {
                                        return std::holds_alternative<GenerationStarted>(fact);
                                      }))
                        .gang[0]
                        .incarnation;
  old.slots = 1;
  old.join_token = "join";
  old.greeting = 1;
  driver.on(WorkerFrame{.peer = "a/x/1", .session = {}, .sequence = {}, .message = old});
  CHECK(driver.state().counters().stale_frames == stale + 1);
  CHECK(driver.orders_left() == 0);
  static_cast<void>(starts);
}

}  // namespace tutti::coordinator::test
