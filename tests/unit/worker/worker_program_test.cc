// Programs that are alone: executed at StartRank, one after the other in a slot.
#include <catch2/catch.hpp>

#include "tests/unit/worker/worker_fixture.h"

using namespace tutti;
using namespace tutti::worker;
using namespace tutti::worker::test;

namespace {

wire::StartRank alone(std::uint64_t process) {
  wire::StartRank out = start_rank(process);
  out.job = JobId{process + 100};
  out.kind = "run";
  out.rank = 0;
  out.size = 1;
  out.slot = 0;
  out.at_once = true;
  return out;
}

ProcessStarted started(std::uint64_t process) {
  return {.process = ProcessId{process}, .pid = static_cast<std::int64_t>(process) + 40};
}

}  // namespace

TEST_CASE("worker: a program that is alone is executed at its order, without a rendezvous") {
  Worker worker;
  worker.join();
  wire::StartRank order = alone(1);
  order.stop_after_ms = 0;
  const Effects ordered = worker.order(order);
  CHECK(all<ReserveAddress>(ordered).empty());
  const auto start = all<StartProcess>(ordered);
  REQUIRE(start.size() == 1);
  REQUIRE(start[0].group);
  CHECK(start[0].group->addresses.empty());
  const Effects began = worker.on(started(1));
  CHECK(sent<wire::RankStarted>(began).size() == 1);
  CHECK(sent<wire::GroupFormed>(began).size() == 1);
  CHECK(all<SignalProcess>(worker.after(120s)).empty());  // nothing has to become ready
  worker.join();
  wire::FormGroup group = form_group(1);
  group.job = JobId{101};
  worker.last_order = 0;
  const Effects again = worker.order(group);
  CHECK(all<StartProcess>(again).empty());
  CHECK(sent<wire::GroupFormed>(again).size() == 1);
}

TEST_CASE("worker: a program that may wait for its slot begins when the one before is gone") {
  Worker worker;
  worker.join();
  wire::StartRank second = alone(2);
  wire::StartRank third = alone(3);
  second.queue = third.queue = true;
  worker.order(alone(1));
  worker.on(started(1));
  CHECK(all<StartProcess>(worker.order(second)).empty());
  CHECK(all<StartProcess>(worker.order(third)).empty());
  SECTION("in order") {
    CHECK(all<StartProcess>(worker.on(exited(1, 0))).at(0).start.process == ProcessId{2});
    worker.on(started(2));
    CHECK(all<StartProcess>(worker.on(exited(2, 1))).at(0).start.process == ProcessId{3});
  }
  SECTION("one that was stopped meanwhile is passed over") {
    wire::StopRank stop = stop_rank(2);
    stop.job = JobId{102};
    CHECK(sent<wire::RankExited>(worker.order(stop)).at(0).ordered);
    CHECK(all<StartProcess>(worker.on(exited(1, 0))).at(0).start.process == ProcessId{3});
  }
  SECTION("who is called back ends only if it has not begun") {
    wire::StopRank stop = stop_rank(1);
    stop.job = JobId{101};
    stop.unless_begun = true;
    const Effects ignored = worker.order(stop);
    CHECK(all<SignalProcess>(ignored).empty());
    CHECK(sent<wire::RankExited>(ignored).empty());
    stop.process = ProcessId{2};
    stop.job = JobId{102};
    const auto exits = sent<wire::RankExited>(worker.order(stop));
    REQUIRE(exits.size() == 1);
    CHECK(exits[0].ordered);
    CHECK_FALSE(exits[0].began);
    stop.process = ProcessId{9};
    CHECK(sent<wire::RankExited>(worker.order(stop)).empty());
    worker.after(5ms);
    const auto ended = sent<wire::RankExited>(worker.on(exited(1, 0)));
    REQUIRE(ended.size() == 1);
    CHECK(ended[0].ran_us >= 5'000);
  }
}

TEST_CASE("worker: programs stand in line while the output of very many waits to be stored") {
  Worker worker;
  worker.join();
  const auto leave_spools = [&](std::uint64_t from, std::uint64_t to) {
    for (std::uint64_t id = from; id < to; ++id) {
      worker.on(SpoolFound{.job = JobId{7},
                           .generation = Generation{1},
                           .process = ProcessId{id},
                           .rank = 0,
                           .log_size = 5,
                           .steps_size = 0});
    }
  };
  constexpr std::uint64_t kFirst = 1'000'000;
  leave_spools(kFirst, kFirst + SpoolSender::kCrowdedFrom);
  wire::StartRank lined_up = alone(2);
  lined_up.queue = true;
  SECTION("until one of them is stored") {
    CHECK(all<StartProcess>(worker.order(alone(1))).size() == 1);  // it is waited for
    worker.on(started(1));
    CHECK(all<StartProcess>(worker.order(lined_up)).empty());
    CHECK(all<StartProcess>(worker.on(exited(1, 0))).empty());
    for (const std::uint64_t id : {kFirst, kFirst + 1}) {
      for (const wire::Stream stream : {wire::Stream::log, wire::Stream::steps}) {
        const bool log = stream == wire::Stream::log;
        const auto done = all<StartProcess>(worker.frame(wire::SpoolAcked{
            .process = ProcessId{id}, .stream = stream, .offset = log ? 5U : 0U, .end = true}));
        const bool last = id == kFirst + 1 && !log;
        REQUIRE(done.size() == (last ? 1 : 0));
        if (last) CHECK(done[0].start.process == ProcessId{2});
      }
    }
  }
  SECTION("and are refused before memory would be the limit") {
    leave_spools(kFirst + SpoolSender::kCrowdedFrom, kFirst + SpoolSender::kWaitingMax);
    const auto exits = sent<wire::RankExited>(worker.order(alone(1)));
    REQUIRE(exits.size() == 1);
    CHECK(exits[0].failure == wire::FailureClass::infrastructure);
    CHECK(exits[0].error.find("waits for the coordinator to store it") != std::string::npos);
  }
}

TEST_CASE("worker: a program that may not wait is refused a slot that is held") {
  Worker worker;
  worker.join();
  worker.order(alone(1));
  const auto exits = sent<wire::RankExited>(worker.order(alone(2)));
  REQUIRE(exits.size() == 1);
  CHECK(exits[0].failure == wire::FailureClass::infrastructure);
  CHECK_FALSE(exits[0].began);
}

TEST_CASE("worker: of a program without a word no stream is sent, if the coordinator knows that") {
  Worker worker;
  const bool knows = GENERATE(false, true);
  const auto hello = sent<wire::Hello>(worker.on(Connected{}));
  worker.on(FrameReceived{.session = {},
                          .sequence = {},
                          .message = wire::Welcome{.session = SessionId{9},
                                                   .heartbeat_ms = 500,
                                                   .lease_ms = 5000,
                                                   .liveness_port = 0,
                                                   .liveness_token = {},
                                                   .greeting = hello.at(0).greeting,
                                                   .knows_silence = knows}});
  worker.order(alone(1));
  worker.on(started(1));
  const Effects ended = worker.on(exited(1, 0));
  const auto exits = sent<wire::RankExited>(ended);
  REQUIRE(exits.size() == 1);
  CHECK(exits[0].began);
  CHECK(exits[0].silent == knows);
  CHECK(all<ReadSpool>(ended).size() == (knows ? 0 : 2));
  CHECK(all<ReleaseProcess>(ended).size() == (knows ? 1 : 0));
}

TEST_CASE("worker: who is ended for want of memory is the user's own failure") {
  Worker worker;
  worker.join();
  worker.order(alone(1));
  ProcessStarted begun = started(1);
  begun.limits = "cgroup1: memory 1 GiB";
  worker.on(begun);
  ProcessExited exit = exited(1, 0, 9);
  exit.memory_peak_bytes = 1 << 30;
  exit.cpu_ms = 1500;
  SECTION("by the kernel") {
    exit.out_of_memory = true;
    const auto told = sent<wire::RankExited>(worker.on(exit)).at(0);
    CHECK(told.failure == wire::FailureClass::user);
    CHECK(told.error == "out of memory: ended by the kernel (cgroup1: memory 1 GiB)");
    CHECK(told.memory_peak_bytes == 1 << 30);
    CHECK(told.cpu_ms == 1500);
  }
  SECTION("a shell says so of its program") {
    exit.signal = 0;
    exit.code = 137;
    exit.out_of_memory = true;
    CHECK(sent<wire::RankExited>(worker.on(exit)).at(0).failure == wire::FailureClass::user);
  }
  SECTION("not who was killed by somebody") {
    CHECK(sent<wire::RankExited>(worker.on(exit)).at(0).failure ==
          wire::FailureClass::infrastructure);
  }
}

TEST_CASE("worker: each program has its own patience with a silent coordinator") {
  Worker worker;
  worker.join();
  wire::StartRank soon = alone(1);
  wire::StartRank never = alone(2);
  soon.stop_after_ms = 10'000;
  never.stop_after_ms = 0;
  never.slot = 1;
  worker.order(soon);
  worker.order(never);
  worker.on(started(1));
  worker.on(started(2));
  worker.lose_link();
  CHECK(all<SignalProcess>(worker.after(9s)).empty());
  const auto ended = all<SignalProcess>(worker.after(2s));
  REQUIRE(ended.size() == 1);
  CHECK(ended[0].process == ProcessId{1});
  worker.on(exited(1, 0, 15));
  CHECK(all<SignalProcess>(worker.after(1000s)).empty());
}

TEST_CASE("worker: who waits for a slot does not begin once the coordinator was silent too long") {
  Worker worker;
  worker.join();
  wire::StartRank first = alone(1);
  wire::StartRank second = alone(2);
  wire::StartRank patient = alone(3);
  first.stop_after_ms = second.stop_after_ms = 10'000;
  patient.stop_after_ms = 0;
  second.queue = patient.queue = true;
  worker.order(first);
  worker.on(started(1));
  worker.order(second);
  worker.order(patient);
  SECTION("it is cut off: whoever waits is done with, and counts as called back") {
    worker.lose_link();
    CHECK(all<SignalProcess>(worker.after(9s)).empty());
    const auto ended = all<SignalProcess>(worker.after(2s));
    REQUIRE(ended.size() == 1);
    CHECK(ended[0].process == ProcessId{1});
    CHECK(worker.state.processes().size() == 2);
    const auto hello = sent<wire::Hello>(worker.on(Connected{}));
    REQUIRE(hello.size() == 1);
    REQUIRE(hello[0].exits.size() == 1);
    CHECK(hello[0].exits[0].process == ProcessId{2});
    CHECK_FALSE(hello[0].exits[0].began);
    CHECK(hello[0].exits[0].ordered);
    CHECK(hello[0].exits[0].failure == wire::FailureClass::none);
  }
  SECTION("it stood still itself, and a program's end is the first that it hears") {
    worker.now = worker.now + 60s;
    const auto begun = all<StartProcess>(worker.on(exited(1, 0)));
    REQUIRE(begun.size() == 1);
    CHECK(begun[0].start.process == ProcessId{3});
  }
}

TEST_CASE("worker: what lay here while it stood still neither begins nor keeps a program") {
  Worker worker;
  worker.join();
  wire::StartRank first = alone(1);
  wire::StartRank late = alone(2);
  first.stop_after_ms = late.stop_after_ms = 10'000;
  late.slot = 1;
  worker.order(first);
  worker.on(started(1));
  worker.after(600ms);  // a heartbeat
  worker.now = worker.now + 60s;
  worker.frame(wire::HeartbeatAnswered{});
  SECTION("an answer") {
    const auto ended = all<SignalProcess>(worker.on(Tick{}));
    REQUIRE(ended.size() == 1);
    CHECK(ended[0].process == ProcessId{1});
  }
  SECTION("an order to start") {
    const Effects refused = worker.order(late);
    CHECK(all<StartProcess>(refused).empty());
    const auto exits = sent<wire::RankExited>(refused);
    REQUIRE(exits.size() == 1);
    CHECK_FALSE(exits[0].began);
    CHECK(exits[0].failure == wire::FailureClass::infrastructure);
  }
  SECTION("a group that is to form") {
    wire::StartRank gang = late;
    gang.at_once = false;
    Worker other;
    other.join();
    other.order(gang);
    other.on(AddressReserved{.process = ProcessId{2}, .address = "127.0.0.1:4001"});
    other.now = other.now + 60s;
    wire::FormGroup group = form_group(2);
    group.job = gang.job;
    const Effects refused = other.order(group);
    CHECK(all<StartProcess>(refused).empty());
    CHECK(sent<wire::RankExited>(refused).size() == 1);
  }
}
