// A worker's own life: leaving, sessions that do not last, faults, and a new binary in its process.
#include <catch2/catch.hpp>

#include "tests/unit/worker/worker_fixture.h"
#include "worker/agent/handover.h"

using namespace tutti;
using namespace tutti::worker;
using namespace tutti::worker::test;

namespace {

wire::StartRank program(std::uint64_t process) {
  wire::StartRank out = start_rank(process);
  out.kind = "run";
  return out;
}

SpoolGrew grew(std::uint64_t process, std::uint64_t size) {
  return {.process = ProcessId{process}, .stream = wire::Stream::log, .size = size};
}

}  // namespace

TEST_CASE("worker: told to end, it leaves as soon as the coordinator has emptied it") {
  Worker worker;
  worker.join();
  worker.order(start_rank(1));
  CHECK(sent<wire::WorkerLeaving>(worker.on(StopRequested{})).size() == 1);
  const auto refused = sent<wire::RankExited>(worker.order(start_rank(2)));
  REQUIRE(refused.size() == 1);
  CHECK(refused[0].error == "the worker leaves");
  worker.order(stop_rank(1));
  CHECK(sent<wire::RankExited>(worker.on(exited(1, 0))).at(0).ordered);
  worker.frame(wire::ReportsAcked{.through = Sequence{9}});
  CHECK(all<Quit>(worker.after(50ms)).size() == 1);
}

TEST_CASE("worker: told to end twice, or without a coordinator, it waits for nobody") {
  Worker worker;
  worker.join();
  worker.order(start_rank(1));
  SECTION("twice") {
    worker.on(StopRequested{});
    worker.on(StopRequested{});
  }
  SECTION("alone") {
    worker.lose_link();
    CHECK(sent<wire::WorkerLeaving>(worker.on(StopRequested{})).empty());
    worker.after(1960ms);
  }
  const auto killed = all<SignalProcess>(worker.after(50ms));
  REQUIRE(killed.size() == 1);
  CHECK(killed[0].signal == 9);
}

TEST_CASE("worker: a session is kept without a liveness connection, which is tried again later") {
  Worker worker;
  CHECK(all<ConnectLiveness>(worker.join()).size() == 1);
  const Effects refused =
      worker.on(LivenessRefused{.session = worker.session(), .reason = "blocked"});
  CHECK(all<Reconnect>(refused).empty());
  CHECK(all<Note>(refused).size() == 1);
  std::size_t tries = 0;
  for (int i = 0; i < 80; ++i) {
    worker.frame(wire::HeartbeatAnswered{});
    tries += all<ConnectLiveness>(worker.after(500ms)).size();
  }
  CHECK(tries == 1);
  CHECK(worker.state.joined());
}

TEST_CASE("worker: sessions that end soon, again and again, are begun less and less often") {
  Worker worker;
  Duration longest{0};
  Duration first{0};
  for (int i = 0; i < 40; ++i) {
    worker.join();
    const auto again = all<Reconnect>(worker.lose_link());
    REQUIRE(again.size() == 1);
    if (i == 0) first = again[0].delay;
    longest = std::max(longest, again[0].delay);
  }
  CHECK(first <= 20ms);
  CHECK(longest > 200ms);
  CHECK(longest <= 6400ms);
  worker.join();
  for (int i = 0; i < 30; ++i) {
    worker.after(400ms);
    worker.frame(wire::HeartbeatAnswered{});
  }
  CHECK(all<Reconnect>(worker.lose_link()).at(0).delay <= 20ms);
}

TEST_CASE("worker: cut off by a fault it neither hears nor says anything, until that is over") {
  Worker worker;
  worker.join();
  worker.order(wire::BreakWorker{.fault = wire::WorkerFault::cut, .lasts_ms = 3000});
  CHECK(all<StartProcess>(worker.order(start_rank(1))).empty());
  CHECK(all<SendToCoordinator>(worker.after(1s)).empty());
  worker.last_order -= 1;  // the coordinator sends it again
  SECTION("by itself") { worker.after(2100ms); }
  SECTION("healed") { worker.order(wire::BreakWorker{.fault = wire::WorkerFault::cut}); }
  CHECK(all<StartProcess>(worker.order(start_rank(1))).size() == 1);
}

TEST_CASE("worker: faults of the worker are refused without --faults") {
  WorkerSettings with = settings();
  with.hello.faults = false;
  Worker worker(std::move(with));
  worker.join();
  CHECK(all<KillSelf>(worker.order(wire::BreakWorker{})).empty());
  worker.order(wire::BreakWorker{.fault = wire::WorkerFault::cut, .lasts_ms = 1000});
  CHECK(all<StartProcess>(worker.order(start_rank(1))).size() == 1);
}

TEST_CASE("worker: the next binary in its process goes on with processes, exits and spools") {
  Worker worker;
  worker.join();
  worker.order(start_rank(1));
  worker.on(ProcessStarted{.process = ProcessId{1}, .pid = 41, .limits = "cgroup1: 1 core"});
  worker.on(RankSpoke{.process = ProcessId{1}, .message = rank_ready(1)});
  worker.on(grew(1, 10));
  worker.order(program(2));
  wire::StartRank waits = program(3);
  waits.at_once = true;
  waits.queue = true;
  waits.slot = 1;
  worker.order(waits);
  worker.order(start_rank(4));
  worker.on(ProcessStarted{.process = ProcessId{4}, .pid = 44});
  worker.on(grew(4, 5));
  worker.on(exited(4, 3));

  Handover given;
  given.state = worker.state.save();
  const auto handover = decode_handover(encode_handover(given));
  REQUIRE(handover);
  Worker next;
  next.state.restore(handover->state);
  CHECK(next.state.save() == worker.state.save());
  const auto hello = sent<wire::Hello>(next.on(Connected{}));
  REQUIRE(hello.size() == 1);
  REQUIRE(hello[0].processes.size() == 3);
  CHECK(hello[0].processes[0].pid == 41);
  CHECK(hello[0].processes[0].phase == wire::ProcessPhase::ready);
  CHECK(hello[0].processes[0].limits == "cgroup1: 1 core");
  REQUIRE(hello[0].exits.size() == 1);
  CHECK(hello[0].exits[0].process == ProcessId{4});
  CHECK(hello[0].greeting == 2);
  const Effects joined = next.join();
  CHECK(sent<wire::RankExited>(joined).size() == 1);
  CHECK(all<ReadSpool>(joined).size() == 3);  // the log of 1; both streams of 4, which has ended
  const auto begun = all<StartProcess>(next.order(stop_rank(2)));
  REQUIRE(begun.size() == 1);  // it waited for the slot of 2
  CHECK(begun[0].start.process == ProcessId{3});
}

TEST_CASE("worker: of a process that has ended it keeps the spool, and what it said until then") {
  Worker worker;
  worker.join();
  worker.order(start_rank(1));
  worker.on(ProcessStarted{.process = ProcessId{1}, .pid = 41});
  worker.on(grew(1, 10));
  SavedState older = worker.state.save();
  worker.on(exited(1, 3));
  const SavedState now = worker.state.save();
  CHECK(now.processes.empty());
  REQUIRE(now.spools.size() == 1);
  CHECK(now.spools[0].ended);
  CHECK(now.reports.size() == older.reports.size() + 1);
  // An earlier binary kept all of it.
  older.processes.at(0).gone = true;
  older.ended = now.ended;
  older.spools = now.spools;
  older.reports = now.reports;
  Worker next;
  next.state.restore(older);
  CHECK(next.state.save() == now);
  next.join();
  CHECK(all<StartProcess>(next.order(start_rank(1))).empty());
}

TEST_CASE("worker: a handover of another version, or a damaged one, is refused") {
  Handover other;
  other.version = 2;
  CHECK(decode_handover(encode_handover(other)).error().code == ErrorCode::unsupported);
  CHECK(decode_handover("\x91").error().code == ErrorCode::corrupt);
}
