#include <catch2/catch.hpp>

#include <csignal>

#include "tests/unit/worker/worker_fixture.h"

using namespace tutti;
using namespace tutti::worker;
using namespace tutti::worker::test;

namespace {

wire::StartRank start_program(std::uint64_t process) {
  wire::StartRank out = start_rank(process);
  out.kind = "run";
  return out;
}

wire::RankFinished finished(std::uint64_t process) {
  wire::RankFinished out;
  out.job = JobId{7};
  out.generation = Generation{1};
  out.process = ProcessId{process};
  return out;
}

}  // namespace

TEST_CASE(
    "worker: a process id is started once, and a late order for one that is gone is refused") {
  Worker worker;
  worker.join();
  worker.order(start_rank(1));
  worker.on(RankSpoke{.process = ProcessId{1}, .message = rank_ready(1)});
  const Effects again = worker.order(start_rank(1));
  CHECK(all<StartProcess>(again).empty());
  CHECK(sent<wire::RankReady>(again).size() == 1);
  worker.on(exited(1, 0));
  const Effects late = worker.order(start_rank(1));
  CHECK(all<StartProcess>(late).empty());
  CHECK(sent<wire::RankExited>(late).size() == 1);
}

TEST_CASE("worker: a slot is not given to a second process while the first lives") {
  Worker worker;
  worker.join();
  worker.order(start_rank(1));
  wire::StartRank second = start_rank(5);
  second.slot = 0;
  const Effects refused = worker.order(second);
  CHECK(all<StartProcess>(refused).empty());
  CHECK(sent<wire::RankExited>(refused).at(0).error.find("slot 0") != std::string::npos);
}

TEST_CASE("worker: orders and reports of an older generation are refused where they arrive") {
  Worker worker;
  worker.join();
  worker.order(start_rank(1, 1));
  worker.order(regroup(1, 3));
  CHECK(told_rank<wire::FormGroup>(worker.order(form_group(1, 1))).empty());
  CHECK(told_rank<wire::Regroup>(worker.order(regroup(1, 2))).empty());
  CHECK(
      told_rank<wire::AbortGeneration>(
          worker.order(wire::AbortGeneration{
              .job = JobId{7}, .generation = Generation{2}, .process = ProcessId{1}, .reason = ""}))
          .empty());
  CHECK(sent<wire::RankReady>(
            worker.on(RankSpoke{.process = ProcessId{1}, .message = rank_ready(1, 1)}))
            .empty());
  CHECK(all<StartProcess>(worker.order(start_rank(2, 2))).empty());
  CHECK(sent<wire::RankReady>(
            worker.on(RankSpoke{.process = ProcessId{1}, .message = rank_ready(1, 3)}))
            .size() == 1);
  CHECK(told_rank<wire::FormGroup>(worker.order(form_group(1, 3))).size() == 1);
}

TEST_CASE("worker: FormGroup is passed on once a generation, and answered again once formed") {
  Worker worker;
  worker.join();
  worker.order(start_rank(1));
  worker.on(RankSpoke{.process = ProcessId{1}, .message = rank_ready(1)});
  CHECK(told_rank<wire::FormGroup>(worker.order(form_group(1))).size() == 1);
  CHECK(told_rank<wire::FormGroup>(worker.order(form_group(1))).empty());
  wire::GroupFormed formed;
  formed.job = JobId{7};
  formed.generation = Generation{1};
  formed.process = ProcessId{1};
  CHECK(sent<wire::GroupFormed>(worker.on(RankSpoke{.process = ProcessId{1}, .message = formed}))
            .size() == 1);
  CHECK(sent<wire::GroupFormed>(worker.order(form_group(1))).size() == 1);
  CHECK(worker.state.processes().at(0).phase == wire::ProcessPhase::formed);
}

TEST_CASE(
    "worker: a rank that is not ready in time is killed, and that is the infrastructure's fault") {
  Worker worker;
  worker.join();
  wire::StartRank start = start_rank(1);
  start.start_ms_max = 10'000;
  worker.order(start);
  CHECK(all<SignalProcess>(worker.after(4s)).empty());
  worker.frame(wire::HeartbeatAnswered{});
  CHECK(all<SignalProcess>(worker.after(7s)).at(0).signal == SIGKILL);
  worker.join();
  const auto exit = sent<wire::RankExited>(worker.on(exited(1, 0, 9)));
  REQUIRE(exit.size() == 1);
  CHECK(exit[0].failure == wire::FailureClass::infrastructure);
  CHECK(exit[0].error.find("not ready") != std::string::npos);
}

TEST_CASE("worker: a rank is asked to stop, and killed when its grace is over") {
  Worker worker;
  worker.join();
  worker.order(start_rank(1));
  const Effects asked = worker.order(stop_rank(1));
  CHECK(told_rank<wire::StopRank>(asked).size() == 1);
  CHECK(all<SignalProcess>(asked).empty());
  CHECK(all<SignalProcess>(worker.after(3s)).empty());
  const auto kill = all<SignalProcess>(worker.after(2500ms));
  REQUIRE(kill.size() == 1);
  CHECK(kill[0].signal == SIGKILL);
  CHECK(kill[0].scope == SignalScope::group);
  worker.join();
  const auto exit = sent<wire::RankExited>(worker.on(exited(1, 0, 9)));
  REQUIRE(exit.size() == 1);
  CHECK(exit[0].ordered);
  CHECK(exit[0].failure == wire::FailureClass::none);
}

TEST_CASE("worker: to stop a process that it does not know is answered with its exit") {
  Worker worker;
  worker.join();
  CHECK(sent<wire::RankExited>(worker.order(stop_rank(77))).size() == 1);
}

TEST_CASE("worker: who is to blame for an exit") {
  struct Case {
    const char* kind;
    std::int32_t code;
    std::int32_t signal;
    wire::FailureClass expected;
  };
  const Case cases[] = {
      {"train", 1, 0, wire::FailureClass::user},
      {"train", 2, 0, wire::FailureClass::user},
      {"train", 3, 0, wire::FailureClass::infrastructure},
      {"train", 4, 0, wire::FailureClass::own},
      {"train", 0, 0, wire::FailureClass::own},  // it never said that it had finished
      {"train", 0, SIGKILL, wire::FailureClass::infrastructure},
      {"train", 0, SIGABRT, wire::FailureClass::own},
      {"run", 0, 0, wire::FailureClass::none},
      {"run", 3, 0, wire::FailureClass::user},
      {"run", 0, SIGSEGV, wire::FailureClass::user},
      {"run", 0, SIGKILL, wire::FailureClass::infrastructure},
  };
  for (const Case& one : cases) {
    Worker worker;
    worker.join();
    wire::StartRank start = start_rank(1);
    start.kind = one.kind;
    worker.order(start);
    const auto exit = sent<wire::RankExited>(worker.on(exited(1, one.code, one.signal)));
    REQUIRE(exit.size() == 1);
    INFO(one.kind << " " << one.code << " " << one.signal);
    CHECK(exit[0].failure == one.expected);
    CHECK(exit[0].seen_unix_ms == 99);
  }
}

TEST_CASE("worker: a rank that finished and then ended well is nobody's fault") {
  Worker worker;
  worker.join();
  worker.order(start_rank(1));
  worker.on(RankSpoke{.process = ProcessId{1}, .message = finished(1)});
  CHECK(sent<wire::RankExited>(worker.on(exited(1, 0))).at(0).failure == wire::FailureClass::none);
}

TEST_CASE("worker: a rank that failed is not called finished to a coordinator that was away") {
  Worker worker;
  worker.join();
  worker.order(start_rank(1));
  worker.order(start_rank(2));
  worker.lose_link();
  wire::RankFinished failed = finished(1);
  failed.failure = wire::FailureClass::user;
  worker.on(RankSpoke{.process = ProcessId{1}, .message = failed});
  worker.on(RankSpoke{.process = ProcessId{2}, .message = finished(2)});
  const auto hello = sent<wire::Hello>(worker.on(Connected{}));
  REQUIRE(hello.at(0).processes.size() == 2);
  CHECK(hello.at(0).processes[0].phase != wire::ProcessPhase::finished);
  CHECK(hello.at(0).processes[1].phase == wire::ProcessPhase::finished);
  const auto reports = sent<wire::RankFinished>(worker.join());
  REQUIRE(reports.size() == 2);
  CHECK(reports[0].failure == wire::FailureClass::user);
}

TEST_CASE(
    "worker: a program's address is reserved first, and it is launched when its group forms") {
  Worker worker;
  worker.join();
  const auto on_device = [](std::uint64_t process, const char* uuid) {
    wire::StartRank start = start_program(process);
    start.device = uuid;
    return start;
  };
  const Effects ordered = worker.order(on_device(1, "GPU-b"));
  CHECK(all<StartProcess>(ordered).empty());
  CHECK(all<ReserveAddress>(ordered).size() == 1);
  worker.order(on_device(2, "GPU-a"));
  const auto ready = sent<wire::RankReady>(
      worker.on(AddressReserved{.process = ProcessId{1}, .address = "127.0.0.1:4001"}));
  CHECK(ready.at(0).address == "127.0.0.1:4001");
  worker.on(AddressReserved{.process = ProcessId{2}, .address = "127.0.0.1:4002"});
  worker.order(form_group(1));
  const auto launch = all<StartProcess>(worker.order(form_group(2)));
  REQUIRE(launch.size() == 1);
  REQUIRE(launch[0].group);
  CHECK(launch[0].local_rank == 1);
  CHECK(launch[0].local_size == 2);
  CHECK(launch[0].local_devices == std::vector<std::string>{"GPU-b", "GPU-a"});
  const Effects started = worker.on(ProcessStarted{.process = ProcessId{2}, .pid = 5});
  CHECK(sent<wire::RankStarted>(started).size() == 1);
  CHECK(sent<wire::GroupFormed>(started).size() == 1);
}

TEST_CASE(
    "worker: a program's whole group gets SIGTERM, then SIGKILL; before its launch it is just "
    "gone") {
  Worker worker;
  worker.join();
  worker.order(start_program(1));
  worker.order(start_program(2));
  worker.order(form_group(1));
  const auto asked = all<SignalProcess>(worker.order(stop_rank(1)));
  REQUIRE(asked.size() == 1);
  CHECK(asked[0].signal == SIGTERM);
  CHECK(asked[0].scope == SignalScope::group);
  const auto never = sent<wire::RankExited>(worker.order(stop_rank(2)));
  REQUIRE(never.size() == 1);
  CHECK(never[0].ordered);
}

TEST_CASE("worker: a program that is aborted is ended; it cannot join the next generation") {
  Worker worker;
  worker.join();
  worker.order(start_program(1));
  worker.on(AddressReserved{.process = ProcessId{1}, .address = "127.0.0.1:4001"});
  worker.order(form_group(1));
  const auto asked =
      all<SignalProcess>(worker.order(wire::AbortGeneration{.job = JobId{7},
                                                            .generation = Generation{1},
                                                            .process = ProcessId{1},
                                                            .reason = "lost rank 0"}));
  REQUIRE(asked.size() == 1);
  CHECK(asked[0].signal == SIGTERM);
}

TEST_CASE("worker: programs are refused where they are switched off, and faults where they are") {
  WorkerSettings strict = settings();
  strict.hello.runs_programs = false;
  strict.hello.faults = false;
  Worker worker(strict);
  worker.join();
  const Effects refused = worker.order(start_program(1));
  CHECK(all<ReserveAddress>(refused).empty());
  CHECK(sent<wire::RankExited>(refused).size() == 1);
  worker.order(start_rank(2));
  const wire::SignalRank fault{.job = JobId{7}, .process = ProcessId{2}, .signal = SIGKILL};
  CHECK(all<SignalProcess>(worker.order(fault)).empty());
  Worker lenient;
  lenient.join();
  lenient.order(start_rank(2));
  CHECK(all<SignalProcess>(lenient.order(fault)).size() == 1);
}

TEST_CASE("worker: step records are synced before the state that they led to goes elsewhere") {
  Worker worker;
  worker.join();
  worker.order(start_rank(1));
  worker.order(start_rank(2));
  wire::FormGroup group = form_group(1);
  CHECK(all<SyncSteps>(worker.order(group)).empty());  // nobody copies it
  const auto comes_first = [](const Effects& effects) {
    return !effects.empty() && std::holds_alternative<SyncSteps>(effects.front()) &&
           std::get<SyncSteps>(effects.front()).job == JobId{7} &&
           all<SyncSteps>(effects).size() == 1;
  };
  group = form_group(2);
  group.copies = {{.from = 1, .to = 0}};
  const Effects copied = worker.order(group);
  CHECK(comes_first(copied));
  CHECK(told_rank<wire::FormGroup>(copied).size() == 1);
  // Who receives the copy has made none of those steps.
  worker.order(regroup(1, 2));
  group = form_group(1, 2);
  group.copies = {{.from = 1, .to = 0}};
  CHECK(all<SyncSteps>(worker.order(group)).empty());
  wire::CheckpointPart part;
  part.job = JobId{7};
  part.process = ProcessId{1};
  part.generation = Generation{2};
  const Effects saved = worker.on(RankSpoke{.process = ProcessId{1}, .message = part});
  CHECK(comes_first(saved));
  CHECK(sent<wire::CheckpointPart>(saved).size() == 1);
  const Effects ended = worker.on(ProcessExited{.process = ProcessId{1}, .code = 0, .signal = 9});
  CHECK(comes_first(ended));
  CHECK(sent<wire::RankExited>(ended).size() == 1);
  CHECK(comes_first(worker.on(SpoolFound{.job = JobId{7},
                                         .generation = Generation{1},
                                         .process = ProcessId{9},
                                         .rank = 0,
                                         .log_size = 1,
                                         .steps_size = 1})));
}

TEST_CASE("worker: a process that speaks for another is not believed") {
  Worker worker;
  worker.join();
  worker.order(start_rank(1));
  worker.order(start_rank(2));
  CHECK(
      sent<wire::RankReady>(worker.on(RankSpoke{.process = ProcessId{1}, .message = rank_ready(2)}))
          .empty());
}
