// Whose failure it was, when the job tries again, who is hung, and which node is to blame.
#include <catch2/catch.hpp>

#include "coordinator/life/failures.h"
#include "tests/unit/coordinator/cluster_driver.h"

namespace tutti::coordinator::test {

using enum JobState;
using wire::FailureClass;

namespace {

wire::RankExited exit_with(std::int32_t code, const std::string& log = {}) {
  wire::RankExited exit;
  exit.code = code;
  exit.log_tail = log;
  return exit;
}

wire::RankProgress progress_of(const wire::StartRank& start, std::uint64_t collective,
                               std::uint64_t beat, std::uint64_t compute_us = 0) {
  return {.job = start.job,
          .generation = start.generation,
          .process = start.process,
          .phase = "exchange",
          .step = collective,
          .collective = collective,
          .compute_us = compute_us,
          .beat = beat};
}

bool says(const Driver& driver, EventKind kind, const std::string& text) {
  return std::any_of(driver.events().begin(), driver.events().end(), [&](const Event& event) {
    return event.kind == kind && event.message.find(text) != std::string::npos;
  });
}

}  // namespace

TEST_CASE("failures: a rule by exit code or log text decides the class in the worker's place") {
  JobRecord job;
  job.terms.kind = "run";
  job.terms.retry_rules = {
      {.by_code = true, .code = 75, .log = {}, .failure = FailureClass::infrastructure},
      {.by_code = false, .code = 0, .log = "NCCL error", .failure = FailureClass::infrastructure},
      {.by_code = true, .code = 9, .log = "fatal", .failure = FailureClass::user}};
  CHECK(judge(job, exit_with(75)).failure == FailureClass::infrastructure);
  CHECK(judge(job, exit_with(1)).failure == FailureClass::user);
  const Loss by_log = judge(job, exit_with(1, "x NCCL error y"));
  CHECK(by_log.failure == FailureClass::infrastructure);
  CHECK(by_log.message.find("NCCL error") != std::string::npos);
  wire::RankExited memory = exit_with(0);
  memory.signal = 9;
  CHECK(judge(job, memory).failure == FailureClass::infrastructure);
  memory.out_of_memory = true;
  CHECK(judge(job, memory).failure == FailureClass::user);
  CHECK(judge(job, exit_with(0, "NCCL error")).failure == FailureClass::infrastructure);
}

TEST_CASE("failures: how the program ended that was the first cause stays with the outcome") {
  Driver driver;
  driver.join("a", 2);
  spec::JobSpec spec = run_spec(1);
  spec.retries.user = 1;
  const JobId job = driver.submit(spec);
  driver.exited(driver.run_up()[0], 7);
  CHECK(driver.job(job).outcome.code == 7);  // while it is tried again
  driver.exited(driver.run_up()[0], 0, 11);
  const JobDetail failed_job = driver.job(job);
  CHECK(failed_job.outcome.code == std::nullopt);
  CHECK(failed_job.outcome.signal == 11);
  CHECK(failed_job.summary.budgets.user == 2);
  CHECK(failed_job.summary.budgets.user_max == 1);
  CHECK(failed_job.summary.budgets.infrastructure == 0);
  const JobId gone = driver.submit(run_spec(1));
  driver.run_up();
  driver.on(CancelJob{.request = driver.next_request(), .job = gone, .reason = {}});
  CHECK(driver.job(gone).outcome.code == std::nullopt);
  CHECK(driver.job(gone).outcome.signal == std::nullopt);
}

TEST_CASE("failures: a task of an array keeps how its program ended") {
  Driver driver;
  driver.join("a", 1);
  spec::JobSpec spec = run_spec(1);
  spec.array = spec::ArraySpec{.count = 1, .at_once = 0};
  const JobId array = driver.submit(spec);
  driver.exited(driver.run_up()[0], 3);
  CHECK(driver.job(array).outcome.code == 3);
  REQUIRE(driver.job(array).tasks.size() == 1);
  CHECK(driver.job(array).tasks[0].code == 3);
  CHECK(driver.state().tasks(array).at(0).code == 3);
  CHECK(driver.job(JobId{array.value + 1}).outcome.code == 3);
}

TEST_CASE("failures: the wait doubles from the second failure in a row, up to its limit") {
  JobTerms terms;
  terms.backoff_jitter = 0;
  CHECK(backoff_ms(terms, 1, 0.5) == 0);
  CHECK(backoff_ms(terms, 2, 0.5) == 1'000);
  CHECK(backoff_ms(terms, 4, 0.5) == 4'000);
  CHECK(backoff_ms(terms, 100, 0.5) == 60'000);
  terms.backoff_jitter = 0.2;
  CHECK(backoff_ms(terms, 2, 0.0) == 800);
  CHECK(backoff_ms(terms, 2, 0.999) > 1'100);
  CHECK(recovery_backoff_ms(terms, 0, 0.5) == 0);
  CHECK(recovery_backoff_ms(terms, 2, 0.5) == 0);
  CHECK(recovery_backoff_ms(terms, 3, 0.5) == 1'000);
}

TEST_CASE("failures: a program that fails again and again waits longer each time") {
  Driver driver;
  driver.join("a", 1);
  spec::JobSpec spec = run_spec(1);
  spec.retries.user = 5;
  const JobId job = driver.submit(spec);
  driver.exited(driver.run_up()[0], 1);
  CHECK(driver.job_state(job) == placed);  // the first time at once
  driver.exited(driver.run_up()[0], 1);
  CHECK(driver.job_state(job) == queued);
  CHECK(driver.job(job).waiting.find("next try") != std::string::npos);
  for (int i = 0; i < 3; ++i) {
    driver.beat("a");
    driver.pass(500ms);
  }
  CHECK(driver.job_state(job) == placed);
  CHECK(driver.state().find_job(job)->failures_user == 2);
  CHECK(driver.state().find_job(job)->failures_infrastructure == 0);
}

TEST_CASE("failures: a place that loses its rank again and again is given it after a wait") {
  Driver driver;
  driver.join("a", 2);
  spec::JobSpec spec = train_spec(2);
  spec.retries.backoff_jitter = 0;
  const JobId job = driver.submit(spec);
  wire::StartRank victim = driver.run_up()[1];
  const auto refuse_start = [&] {
    driver.exited(victim, 0, 0, FailureClass::infrastructure);
    const auto next = driver.take<wire::StartRank>();
    if (!next.empty()) victim = next.front();
    return !next.empty();
  };
  // A loss, and one more while it is made good: both at once.
  CHECK(refuse_start());
  CHECK(refuse_start());
  CHECK_FALSE(refuse_start());
  CHECK(driver.job_state(job) == recovering);
  CHECK(driver.job(job).waiting.find("tries again in 1.0 s") != std::string::npos);
  driver.pass(900ms);
  driver.beat("a");
  CHECK(driver.take<wire::StartRank>().empty());
  driver.pass(200ms);
  const auto later = driver.take<wire::StartRank>();
  REQUIRE(later.size() == 1);
  victim = later.front();
  CHECK_FALSE(refuse_start());  // and twice as long
  driver.beat("a");
  driver.pass(1'500ms);
  CHECK(driver.take<wire::StartRank>().empty());
  driver.beat("a");
  driver.pass(600ms);
  CHECK(driver.take<wire::StartRank>().size() == 1);
  CHECK(driver.state().find_job(job)->failures_infrastructure == 4);
}

TEST_CASE("failures: a server that worked between its crashes is not given up for their number") {
  Driver driver;
  driver.join("a", 1);
  const JobId job = driver.submit(serve_spec());
  wire::StartRank server = driver.run_up()[0];
  const auto work = [&](std::chrono::minutes time) {
    for (std::chrono::seconds passed{}; passed < time; passed += 1s) {
      driver.beat("a");
      driver.pass(1s);
    }
  };
  const auto crash = [&] {
    driver.exited(server, 0, 6);
    for (int waited = 0; waited < 120 && driver.job_state(job) != failed; ++waited) {
      const std::vector<wire::StartRank> starts = driver.run_up();
      if (!starts.empty()) server = starts[0];
      if (!starts.empty()) return;
      driver.beat("a");
      driver.pass(1s);
    }
  };
  for (int i = 0; i < 5; ++i) {
    work(11min);
    crash();
    REQUIRE(driver.job_state(job) == running);
  }
  crash();
  crash();
  CHECK(driver.job_state(job) == failed);
  CHECK(driver.job(job).summary.exit_code == 4);
}

TEST_CASE("failures: a day without one gives the infrastructure's budget back") {
  Driver driver;
  driver.join("a", 1);
  spec::JobSpec spec = serve_spec();
  spec.retries.infrastructure = 1;
  const JobId job = driver.submit(spec);
  driver.exited(driver.run_up()[0], 0, 9);
  driver.set_clock(std::chrono::hours(25));
  driver.exited(driver.run_up()[0], 0, 9);
  CHECK(driver.job_state(job) == recovering);
  const auto again = driver.run_up();
  REQUIRE(again.size() == 1);
  driver.exited(again[0], 0, 9);
  CHECK(driver.job(job).summary.exit_code == 3);
}

TEST_CASE("failures: a rank that gives up by the user's fault while its group is aborted says so") {
  Driver driver;
  driver.join("a", 2);
  const JobId job = driver.submit(train_spec(2));
  const auto starts = driver.run_up();
  driver.broken(starts[0], Generation{1}, 1, "rank 1 is gone", holds(3));
  CHECK(driver.job_state(job) == recovering);
  driver.say("a", wire::RankFinished{.job = job,
                                     .generation = Generation{1},
                                     .process = starts[1].process,
                                     .rank = 1,
                                     .step = 3,
                                     .failure = FailureClass::user,
                                     .message = "the gradient of w is not finite"});
  for (const auto& start : starts) driver.exited(start, 0);
  CHECK(driver.job_state(job) == failed);
  CHECK(driver.job(job).summary.exit_code == 1);
  CHECK(driver.state().find_job(job)->failures_infrastructure == 0);
}

TEST_CASE("failures: with of_node shrink the survivors go on without those that find no place") {
  Driver driver;
  driver.join("a", 1);
  driver.join("b", 1);
  spec::JobSpec spec = train_spec(2);
  spec.resources.ranks_min = 1;
  spec.on_loss.of_node = "shrink";
  const JobId job = driver.submit(spec);
  const auto starts = driver.run_up();
  REQUIRE(starts.size() == 2);
  driver.disconnect("b");
  driver.pass(300ms);
  const auto regroups = driver.take<wire::Regroup>();
  REQUIRE(regroups.size() == 1);
  CHECK(regroups[0].size == 1);
  CHECK(regroups[0].rank == 0);
  driver.ready(starts[0], Generation{2}, holds(6));
  const auto groups = driver.take<wire::FormGroup>();
  REQUIRE(groups.size() == 1);
  CHECK(groups[0].base_step == 6);
  driver.formed(starts[0], groups[0]);
  CHECK(driver.job_state(job) == running);
  CHECK(driver.state().find_job(job)->failures_infrastructure == 1);
}

TEST_CASE("nodes: that a worker was not restarted in place is an event of its node, cut to size") {
  Driver driver;
  driver.join("a", 1);
  const std::size_t before = driver.events().size();
  wire::Heartbeat beat;
  beat.restart_refused = "its file is broken" + std::string(5'000, '.');
  driver.say("a", beat);
  REQUIRE(driver.events().size() == before + 1);
  const Event& event = driver.events().back();
  CHECK(event.kind == EventKind::restart_refused);
  CHECK(event.worker == "a");
  CHECK(event.message.find("its file is broken") != std::string::npos);
  CHECK(event.message.size() < 1'000);
  driver.beat("a");
  CHECK(driver.events().size() == before + 1);
}

TEST_CASE("hang: the rank that has not entered the collective of the others is named and ended") {
  Driver driver;
  driver.join("a", 3);
  spec::JobSpec spec = train_spec(3);
  spec.hang.after_ms = 6'000;
  const JobId job = driver.submit(spec);
  const auto starts = driver.run_up();
  std::uint64_t beat = 1;
  const auto report = [&](std::uint64_t behind) {
    driver.beat("a", {progress_of(starts[0], 812, beat), progress_of(starts[1], behind, beat),
                      progress_of(starts[2], 812, beat)});
    driver.pass(500ms);
    ++beat;
  };
  for (int i = 0; i < 11; ++i) report(811);
  CHECK(driver.take<wire::StopRank>().empty());
  CHECK(driver.job(job).standstill.find("rank 1 has not entered collective 812") == 0);
  for (int i = 0; i < 3; ++i) report(811);
  const auto stops = driver.take<wire::StopRank>();
  REQUIRE(stops.size() == 1);
  CHECK(stops[0].process == starts[1].process);
  CHECK(says(driver, EventKind::hang, "rank 1 has not entered collective 812 of step 812"));
}

TEST_CASE("hang: where all are in one collective, the process that does not beat is to blame") {
  Driver driver;
  driver.join("a", 2);
  spec::JobSpec spec = train_spec(2);
  spec.hang.after_ms = 8'000;
  spec.hang.action = "tell";
  const JobId job = driver.submit(spec);
  const auto starts = driver.run_up();
  for (std::uint64_t beat = 1; beat < 40; ++beat) {
    driver.beat("a", {progress_of(starts[0], 5, 1), progress_of(starts[1], 5, beat)});
    driver.pass(500ms);
  }
  CHECK(says(driver, EventKind::hang, "rank 0 made no progress"));
  CHECK(says(driver, EventKind::hang, "its process stands still"));
  CHECK(driver.take<wire::StopRank>().empty());
  CHECK(driver.job_state(job) == running);
}

TEST_CASE("hang: a server whose process does nothing is ended and started again") {
  Driver driver;
  driver.join("a", 1);
  spec::JobSpec spec = serve_spec();
  spec.hang.after_ms = 8'000;
  const JobId job = driver.submit(spec);
  const auto starts = driver.run_up();
  const auto report = [&](std::uint64_t beat, const std::string& phase, std::uint64_t step) {
    wire::RankProgress progress = progress_of(starts[0], 0, beat);
    progress.phase = phase;
    progress.step = step;
    driver.beat("a", {progress});
    driver.pass(500ms);
  };
  // Nobody asks it anything, for a minute: it beats.
  for (std::uint64_t beat = 1; beat < 120; ++beat) report(beat, "serving", 3);
  CHECK(driver.take<wire::StopRank>().empty());
  for (int i = 0; i < 20; ++i) report(120, "serving", 3);
  CHECK(says(driver, EventKind::hang, "rank 0 stands still"));
  const auto stops = driver.take<wire::StopRank>();
  REQUIRE(stops.size() == 1);
  driver.exited(starts[0], 0, 9);
  CHECK(driver.job_state(job) == recovering);
}

TEST_CASE("hang: a server with open requests that makes no pass is told of") {
  Driver driver;
  driver.join("a", 1);
  spec::JobSpec spec = serve_spec();
  spec.hang.after_ms = 8'000;
  spec.hang.action = "tell";
  driver.submit(spec);
  const auto starts = driver.run_up();
  const auto report = [&](std::uint64_t beat, std::uint64_t step) {
    wire::RankProgress progress = progress_of(starts[0], 0, beat);
    progress.phase = "answering";
    progress.step = step;
    driver.beat("a", {progress});
    driver.pass(500ms);
  };
  for (std::uint64_t beat = 1; beat < 60; ++beat) report(beat, beat);
  CHECK_FALSE(says(driver, EventKind::hang, "rank 0"));
  for (std::uint64_t beat = 60; beat < 80; ++beat) report(beat, 60);
  CHECK(says(driver, EventKind::hang, "rank 0 has requests open and made no pass"));
  CHECK(driver.take<wire::StopRank>().empty());
}

TEST_CASE("failures: ranks that are out of order in their collectives are Tutti's own failure") {
  Driver driver;
  driver.join("a", 2);
  const JobId job = driver.submit(train_spec(2));
  const auto starts = driver.run_up();
  const auto leave = [&](std::size_t rank, Generation generation, FailureClass failure) {
    driver.say("a", wire::GenerationBroken{.job = job,
                                           .generation = generation,
                                           .process = starts[rank].process,
                                           .rank = starts[rank].rank,
                                           .reason = failure == FailureClass::own
                                                         ? "rank 0 sent 8 bytes of group 4"
                                                         : "rank 1 is gone",
                                           .held = holds(7),
                                           .failure = failure});
  };
  for (std::uint64_t number = 1; number <= 3; ++number) {
    INFO(number);
    REQUIRE(driver.job_state(job) == running);
    const Generation generation{number};
    // Who saw no more than the other's end may be heard first.
    if (number == 2) leave(0, generation, FailureClass::none);
    leave(1, generation, FailureClass::own);
    if (number != 2) leave(0, generation, FailureClass::none);
    CHECK(driver.job(job).summary.budgets.infrastructure == 0);
    if (number == 3) break;
    CHECK(driver.job(job).summary.budgets.own == number);
    driver.pass(1s);
    for (const auto& start : starts) driver.ready(start, Generation{number + 1}, holds(7));
    const auto groups = driver.take<wire::FormGroup>();
    REQUIRE(groups.size() == 2);
    for (std::size_t rank = 0; rank < 2; ++rank) driver.formed(starts[rank], groups[rank]);
  }
  const Outcome outcome = driver.job(job).outcome;
  CHECK(outcome.exit_code == 4);
  CHECK(outcome.failure == FailureClass::own);
  CHECK(outcome.message == "failed 3 times at step 7: rank 1: rank 0 sent 8 bytes of group 4");
}

TEST_CASE("hang: a rank that computes much longer than the others is called a straggler, once") {
  Driver driver;
  driver.join("a", 3);
  const JobId job = driver.submit(train_spec(3));
  const auto starts = driver.run_up();
  for (std::uint64_t step = 1; step < 200; ++step) {
    driver.beat(
        "a", {progress_of(starts[0], step, step, 1'000), progress_of(starts[1], step, step, 1'010),
              progress_of(starts[2], step, step, 2'000)});
    driver.pass(500ms);
  }
  std::size_t told = 0;
  for (const Event& event : driver.events()) told += event.kind == EventKind::straggler ? 1 : 0;
  CHECK(told == 1);
  CHECK(says(driver, EventKind::straggler, "rank 2 of 3"));
  for (const ProcessView& process : driver.job(job).processes) {
    if (process.rank == 2) CHECK(process.straggler == Approx(1.98).epsilon(0.01));
    if (process.rank == 1) CHECK(process.straggler == Approx(1.0));
  }
  // And among those of all nodes, which metrics are made of.
  const std::vector<NodeView> nodes = driver.state().nodes();
  REQUIRE(nodes.at(0).processes.size() == 3);
  CHECK(nodes[0].processes[2].straggler == Approx(1.98).epsilon(0.01));
}

TEST_CASE("nodes: one that fails jobs of three users is set aside, says why, and can come back") {
  Driver driver;
  driver.join("bad", 1);
  const auto submit_as = [&](const std::string& owner) {
    const RequestId request = driver.next_request();
    driver.on(SubmitJob{
        .request = request, .key = {}, .owner = owner, .yaml = "spec", .spec = train_spec(1)});
    driver.pass(0s);
    return std::get<JobAccepted>(*driver.answer(request)).job;
  };
  for (const char* owner : {"ann", "ben", "cat"}) {
    const JobId job = submit_as(owner);
    const auto starts = driver.run_up();
    REQUIRE(starts.size() == 1);
    if (std::string(owner) == "cat") driver.join("good", 1);
    driver.exited(starts[0], 0, 9, FailureClass::infrastructure);
    driver.on(CancelJob{.request = driver.next_request(), .job = job, .reason = {}, .save = false});
    for (const auto& again : driver.take<wire::StartRank>()) driver.exited(again, 0);
    driver.take<wire::StopRank>();
  }
  const auto nodes = driver.state().nodes();
  REQUIRE(nodes.size() == 2);
  CHECK(nodes[0].name == "bad");
  CHECK(nodes[0].state == "quarantined");
  CHECK(nodes[0].score_users == 3);
  CHECK(nodes[0].score.find("3 users") != std::string::npos);
  CHECK(nodes[0].score.find("of ben") != std::string::npos);
  CHECK(nodes[1].state == "ready");
  driver.on(UndrainNode{.request = driver.next_request(), .node = "bad"});
  CHECK(driver.state().nodes()[0].state == "ready");
  CHECK(driver.state().nodes()[0].score.empty());
}

}  // namespace tutti::coordinator::test
