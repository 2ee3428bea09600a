#include <catch2/catch.hpp>

#include "protocol/wire/link.h"
#include "tests/unit/worker/worker_fixture.h"

using namespace tutti;
using namespace tutti::worker;
using namespace tutti::worker::test;

TEST_CASE(
    "worker: greets when connected, and a Welcome brings a session and the liveness connection") {
  Worker worker;
  CHECK_FALSE(worker.state.joined());
  const Effects effects = worker.join();
  CHECK(worker.state.joined());
  CHECK(worker.session() == SessionId{1});
  const auto liveness = all<ConnectLiveness>(effects);
  REQUIRE(liveness.size() == 1);
  CHECK(liveness[0].port == 1234);
}

TEST_CASE("worker: a Welcome that answers an older Hello is ignored") {
  Worker worker;
  worker.on(Connected{});
  const auto second = sent<wire::Hello>(worker.on(Connected{}));
  REQUIRE(second.size() == 1);
  CHECK(second[0].greeting == 2);
  wire::Welcome old;
  old.session = SessionId{9};
  old.greeting = 1;
  worker.on(FrameReceived{.session = {}, .sequence = {}, .message = old});
  CHECK_FALSE(worker.state.joined());
  CHECK(worker.state.stale_frames() == 1);
}

TEST_CASE("worker: an unanswered Hello leads to a new connection, and so on without end") {
  Worker worker;
  for (int i = 0; i < 20; ++i) {
    worker.on(Connected{});
    CHECK(all<Reconnect>(worker.after(6s)).size() == 1);
  }
  worker.join();
  CHECK(worker.state.joined());
}

TEST_CASE("worker: orders are done once and in order, and acknowledged whatever arrives") {
  Worker worker;
  worker.join();
  CHECK(all<StartProcess>(worker.frame(start_rank(2), 2)).empty());  // 1 is missing
  const Effects first = worker.frame(start_rank(1), 1);
  CHECK(all<StartProcess>(first).size() == 1);
  CHECK(told_rank<wire::StartRank>(first).size() == 1);
  CHECK(sent<wire::OrdersAcked>(first).at(0).through == Sequence{1});
  const Effects again = worker.frame(start_rank(1), 1);
  CHECK(all<StartProcess>(again).empty());
  CHECK(sent<wire::OrdersAcked>(again).at(0).through == Sequence{1});
}

TEST_CASE("worker: frames of another session and orders without a number are dropped") {
  Worker worker;
  worker.join();
  worker.on(
      FrameReceived{.session = SessionId{99}, .sequence = Sequence{1}, .message = start_rank(1)});
  worker.frame(start_rank(1), 0);
  CHECK(worker.state.processes().empty());
  CHECK(worker.state.stale_frames() == 2);
}

TEST_CASE(
    "worker: an order that it does not understand is acknowledged, and those behind it count") {
  Worker worker;
  worker.join();
  const auto unknown = [&](std::uint64_t sequence) {
    return worker.on(UnknownOrder{.session = worker.session(),
                                  .sequence = Sequence{sequence},
                                  .what = "frames of kind 999 are not taken on this link"});
  };
  const auto acked = [](const Effects& effects) {
    const auto found = sent<wire::OrdersAcked>(effects);
    return found.size() == 1 ? found[0].through.value : 0;
  };
  const Effects ignored = unknown(1);
  CHECK(acked(ignored) == 1);
  REQUIRE(all<Note>(ignored).size() == 1);
  CHECK(all<Note>(ignored)[0].text.find("kind 999") != std::string::npos);
  // Sent again, as its acknowledgement was lost: no second line.
  CHECK(acked(unknown(1)) == 1);
  CHECK(all<Note>(unknown(1)).empty());
  const Effects next = worker.frame(start_rank(1), 2);
  CHECK(acked(next) == 2);
  CHECK(all<StartProcess>(next).size() == 1);
  // What is behind a gap waits for it, whatever it is.
  CHECK(acked(unknown(4)) == 2);
  CHECK(sent<wire::OrdersAcked>(
            worker.on(UnknownOrder{
                .session = SessionId{99}, .sequence = Sequence{3}, .what = "of another session"}))
            .empty());
}

TEST_CASE("worker: reports are sent again until they are acknowledged") {
  Worker worker;
  worker.join();
  worker.order(start_rank(1));
  const auto first =
      sent<wire::RankStarted>(worker.on(ProcessStarted{.process = ProcessId{1}, .pid = 42}));
  REQUIRE(first.size() == 1);
  CHECK(first[0].pid == 42);
  CHECK(sent<wire::RankStarted>(worker.after(100ms)).empty());
  CHECK(sent<wire::RankStarted>(worker.after(600ms)).size() == 1);
  worker.frame(wire::ReportsAcked{.through = Sequence{1}});
  CHECK(sent<wire::RankStarted>(worker.after(600ms)).empty());
  CHECK(worker.state.unacknowledged() == 0);
}

TEST_CASE(
    "worker: an exit that nobody has acknowledged is told to the next session, in Hello and as a "
    "report") {
  Worker worker;
  worker.join();
  worker.order(start_rank(1));
  worker.lose_link();
  worker.on(exited(1, 0, 9));
  const auto hello = sent<wire::Hello>(worker.on(Connected{}));
  REQUIRE(hello.size() == 1);
  CHECK(hello[0].processes.empty());
  REQUIRE(hello[0].exits.size() == 1);
  CHECK(hello[0].exits[0].signal == 9);
  CHECK(hello[0].exits[0].failure == wire::FailureClass::infrastructure);
  CHECK(sent<wire::RankExited>(worker.join()).size() == 1);
}

TEST_CASE("worker: silence of the coordinator ends no process, and Hello says what runs") {
  Worker worker;
  worker.join();
  worker.order(start_rank(1));
  worker.on(RankSpoke{.process = ProcessId{1}, .message = rank_ready(1)});
  const Effects silent = worker.after(6s);
  CHECK(all<Reconnect>(silent).size() == 1);
  CHECK_FALSE(worker.state.joined());
  for (int i = 0; i < 200; ++i) CHECK(all<SignalProcess>(worker.after(3s)).empty());
  const auto hello = sent<wire::Hello>(worker.on(Connected{}));
  REQUIRE(hello.size() == 1);
  REQUIRE(hello[0].processes.size() == 1);
  CHECK(hello[0].processes[0].phase == wire::ProcessPhase::ready);
  CHECK(hello[0].processes[0].address == "unix:/tmp/x");
}

TEST_CASE("worker: programs are ended after a minute of silence, training ranks are not") {
  Worker worker;
  worker.join();
  worker.order(start_rank(1));
  worker.on(RankSpoke{.process = ProcessId{1}, .message = rank_ready(1)});
  wire::StartRank program = start_rank(2);
  program.kind = "run";
  worker.order(program);
  worker.on(AddressReserved{.process = ProcessId{2}, .address = "127.0.0.1:4002"});
  worker.order(form_group(2));
  worker.lose_link();
  CHECK(all<SignalProcess>(worker.after(55s)).empty());
  const auto asked = all<SignalProcess>(worker.after(6s));
  REQUIRE(asked.size() == 1);
  CHECK(asked[0].process == ProcessId{2});
  CHECK(all<SignalProcess>(worker.after(3s)).at(0).process == ProcessId{2});  // by force
  worker.on(exited(2, 0, 9));
  const auto hello = sent<wire::Hello>(worker.on(Connected{}));
  CHECK(hello.at(0).processes.size() == 1);
  CHECK(hello.at(0).exits.at(0).failure == wire::FailureClass::infrastructure);
}

TEST_CASE("worker: heartbeats carry the newest progress and their answers keep the session") {
  Worker worker;
  worker.join();
  worker.order(start_rank(1));
  wire::RankProgress progress;
  progress.job = JobId{7};
  progress.generation = Generation{1};
  progress.process = ProcessId{1};
  progress.step = 12;
  worker.on(RankSpoke{.process = ProcessId{1}, .message = progress});
  for (int i = 0; i < 30; ++i) {
    const auto beats = sent<wire::Heartbeat>(worker.after(500ms));
    REQUIRE(beats.size() == 1);
    CHECK(beats[0].progress.at(0).step == 12);
    worker.frame(wire::HeartbeatAnswered{});
  }
  CHECK(worker.state.joined());
}

TEST_CASE("worker: what devices were read as goes with one heartbeat, and anew to each session") {
  Worker worker;
  worker.join();
  const wire::DeviceReading reading{.uuid = "GPU-0", .temperature_celsius = 61};
  CHECK(sent<wire::Heartbeat>(worker.after(500ms)).at(0).readings.empty());
  CHECK(worker.on(DevicesRead{.readings = {reading}}).empty());
  CHECK(sent<wire::Heartbeat>(worker.after(500ms)).at(0).readings ==
        std::vector<wire::DeviceReading>{reading});
  CHECK(sent<wire::Heartbeat>(worker.after(500ms)).at(0).readings.empty());
  worker.lose_link();
  worker.after(5s);
  worker.join();
  CHECK(sent<wire::Heartbeat>(worker.after(500ms)).at(0).readings.size() == 1);
  CHECK(sent<wire::Heartbeat>(worker.after(500ms)).at(0).readings.empty());
}

TEST_CASE("worker: a worker that is not admitted ends with the code for refused") {
  Worker worker;
  worker.on(Connected{});
  const auto quits = all<Quit>(worker.on(FrameReceived{
      .session = {},
      .sequence = {},
      .message = wire::Refused{.code = "permission_denied", .message = "wrong join token"}}));
  REQUIRE(quits.size() == 1);
  CHECK(quits[0].exit_code == 5);
  CHECK(quits[0].message.find("wrong join token") != std::string::npos);
  CHECK(worker.state.ended());
}

TEST_CASE("worker: told to stop, it ends its ranks, by force if need be, and then itself") {
  Worker worker;
  worker.join();
  worker.order(start_rank(1));
  worker.order(start_rank(2));
  const auto leaving = sent<wire::WorkerLeaving>(worker.on(StopRequested{}));
  REQUIRE(leaving.size() == 1);
  CHECK(leaving[0].deadline_ms == 30'000);
  for (int i = 0; i < 29; ++i) {
    CHECK(told_rank<wire::StopRank>(worker.after(1s)).empty());
    worker.frame(wire::HeartbeatAnswered{});
  }
  CHECK(told_rank<wire::StopRank>(worker.after(1s)).size() == 2);
  CHECK(sent<wire::RankExited>(worker.on(exited(1, 0))).at(0).failure ==
        wire::FailureClass::infrastructure);
  CHECK(all<StartProcess>(worker.order(start_rank(3))).empty());
  CHECK(all<SignalProcess>(worker.after(2100ms)).size() == 1);
  worker.on(exited(2, 0, 9));
  CHECK(all<Quit>(worker.after(100ms)).empty());  // reports are waited for
  CHECK(all<Quit>(worker.after(500ms)).size() == 1);
}

TEST_CASE("worker: that it was not restarted is said with the next heartbeat, once") {
  Worker worker;
  worker.on(RestartRefused{.reason = "its file is broken"});
  worker.join();
  const auto first = sent<wire::Heartbeat>(worker.after(600ms));
  REQUIRE(first.size() == 1);
  CHECK(first[0].restart_refused == "its file is broken");
  worker.frame(wire::HeartbeatAnswered{});
  const auto second = sent<wire::Heartbeat>(worker.after(600ms));
  REQUIRE(second.size() == 1);
  CHECK(second[0].restart_refused.empty());
}

TEST_CASE("worker: a Hello fits a frame, also where a thousand programs have failed meanwhile") {
  WorkerSettings with = settings();
  constexpr std::uint64_t kPrograms = 1500;
  with.hello.slots = kPrograms;
  Worker worker(with);
  worker.join();
  for (std::uint64_t id = 1; id <= kPrograms; ++id) {
    wire::StartRank order = start_rank(id);
    order.kind = "run";
    order.at_once = true;
    order.stop_after_ms = 0;
    worker.order(order);
    worker.on(ProcessStarted{.process = ProcessId{id}, .pid = 40});
  }
  worker.lose_link();
  for (std::uint64_t id = 1; id <= kPrograms; ++id) {
    ProcessExited exit = exited(id, 1);
    exit.log_tail = std::string(4096, 'x');
    worker.on(exit);
  }
  const auto hello = sent<wire::Hello>(worker.on(Connected{}));
  REQUIRE(hello.size() == 1);
  REQUIRE(hello[0].exits.size() == kPrograms);
  CHECK(hello[0].exits.front().log_tail.size() == 4096);
  CHECK(hello[0].exits.back().log_tail.empty());
  CHECK(wire::encode_frame<wire::FromWorker>(hello[0]).ok());
}

TEST_CASE("worker: of parts saved while the coordinator is away the newest wait, ends all do") {
  Worker worker;
  worker.join();
  worker.order(start_rank(1));
  worker.order(start_rank(2));
  worker.lose_link();
  const auto part = [](std::uint64_t process, std::uint64_t step) {
    wire::CheckpointPart out;
    out.job = JobId{7};
    out.generation = Generation{1};
    out.process = ProcessId{process};
    out.step = step;
    return RankSpoke{.process = ProcessId{process}, .message = out};
  };
  for (std::uint64_t step = 1; step <= 5000; ++step) {
    worker.on(part(1, step));
    if (step % 1000 == 0) worker.on(part(2, step));
  }
  worker.on(exited(2, 3));
  const auto reports = sent<wire::CheckpointPart>(worker.join());
  std::vector<std::uint64_t> first;
  std::vector<std::uint64_t> second;
  for (const wire::CheckpointPart& each : reports) {
    (each.process == ProcessId{1} ? first : second).push_back(each.step);
  }
  CHECK(first == std::vector<std::uint64_t>{4997, 4998, 4999, 5000});
  CHECK(second == std::vector<std::uint64_t>{2000, 3000, 4000, 5000});
  CHECK(worker.state.unacknowledged() == 9);
}

TEST_CASE("worker: with very many reports waiting, what a Hello repeats is left out first") {
  Worker worker;
  worker.join();
  worker.order(start_rank(1));
  for (std::uint64_t i = 0; i < kReportsMax + 10; ++i) {
    worker.on(RankSpoke{.process = ProcessId{1}, .message = rank_ready(1)});
  }
  CHECK(worker.state.unacknowledged() == kReportsMax);
  wire::CheckpointPart part;
  part.job = JobId{7};
  part.process = ProcessId{1};
  worker.on(RankSpoke{.process = ProcessId{1}, .message = part});
  CHECK(worker.state.unacknowledged() == kReportsMax + 1);
}
