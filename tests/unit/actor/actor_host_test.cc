#include "protocol/actor/actor_host.h"

#include <signal.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include <future>

#include "protocol/base/file.h"
#include "tests/support/event_log.h"
#include "tests/support/patience.h"

namespace tutti::actor {
namespace {

using Lines = std::vector<std::string>;

TEST_CASE("actor: messages run one at a time, in the order in which they were told") {
  test::EventLog log;
  Runtime runtime(2);
  ActorHost host(runtime);
  int running = 0;
  for (int i = 0; i < 100; ++i) {
    REQUIRE(host.tell([&, i] {
                  const bool alone = ++running == 1 && host.on_strand();
                  log.add(alone ? std::to_string(i) : "not alone");
                  --running;
                })
                .ok());
  }
  runtime.start();
  REQUIRE(log.wait_for(100));
  for (int i = 0; i < 100; ++i)
    CHECK(log.lines()[static_cast<std::size_t>(i)] == std::to_string(i));
  CHECK_FALSE(host.on_strand());
  runtime.stop();
}

TEST_CASE("actor: a full mailbox refuses, and takes again once it has been served") {
  test::EventLog log;
  Runtime runtime(1);
  ActorHost host(runtime, {.name = "small", .mailbox_max = 2});
  REQUIRE(host.tell([&] { log.add("1"); }).ok());
  REQUIRE(host.tell([&] { log.add("2"); }).ok());
  const Result<> refused = host.tell([&] { log.add("3"); });
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.error().code == ErrorCode::exhausted);
  runtime.start();
  REQUIRE(log.wait_for(2));
  REQUIRE(host.tell([&] { log.add("4"); }).ok());
  REQUIRE(log.wait_for(3));
  CHECK(log.lines() == Lines{"1", "2", "4"});
  runtime.stop();
}

TEST_CASE("actor: what is told last runs in order, once the handler that told it has returned") {
  test::EventLog log;
  Runtime runtime(2);
  ActorHost host(runtime, {.name = "small", .mailbox_max = 3});
  REQUIRE(host.tell([&] {
                CHECK_FALSE(host.has_mail());
                CHECK(host.tell_last([&] { log.add("second"); }).ok());
                CHECK(host.tell([&] { log.add("third"); }).ok());
                CHECK(host.has_mail());
                CHECK(host.tell_last([&] { log.add("fourth"); }).ok());
                const Result<> refused = host.tell_last([&] { log.add("never"); });
                CHECK(refused.error().code == ErrorCode::exhausted);
                log.add("first");
              })
              .ok());
  runtime.start();
  REQUIRE(log.wait_for(4));
  CHECK(log.lines() == Lines{"first", "second", "third", "fourth"});
  runtime.stop();
}

TEST_CASE("actor: timers fire in order, and one that was cancelled does not") {
  test::EventLog log;
  Runtime runtime(1);
  ActorHost host(runtime);
  const TimerId cancelled = host.arm(std::chrono::milliseconds(1), [&] { log.add("cancelled"); });
  host.arm(std::chrono::milliseconds(3), [&] {
    log.add("late");
    host.arm(Duration::zero(), [&] { log.add("again"); });
  });
  host.arm(std::chrono::milliseconds(2), [&] { log.add("early"); });
  host.cancel(cancelled);
  runtime.start();
  REQUIRE(log.wait_for(3));
  CHECK(log.lines() == Lines{"early", "late", "again"});
  runtime.stop();
}

TEST_CASE("actor: a watched descriptor is served until it is unwatched") {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const FileDescriptor in(ends[0]);
  const FileDescriptor out(ends[1]);
  test::EventLog log;
  Runtime runtime(1);
  ActorHost host(runtime);
  REQUIRE(host.watch_readable(in.get(),
                              [&] {
                                char byte = 0;
                                const bool read = ::read(in.get(), &byte, 1) == 1;
                                if (byte == 'b') host.unwatch(in.get());
                                log.add(read ? std::string(1, byte) : "nothing");
                              })
              .ok());
  runtime.start();
  REQUIRE(::write(out.get(), "ab", 2) == 2);
  REQUIRE(log.wait_for(2));
  REQUIRE(::write(out.get(), "c", 1) == 1);
  std::promise<void> served;
  REQUIRE(host.tell([&] { served.set_value(); }).ok());
  REQUIRE(served.get_future().wait_for(test::patient(std::chrono::seconds(10))) ==
          std::future_status::ready);
  CHECK(log.lines() == Lines{"a", "b"});
  runtime.stop();
}

TEST_CASE("actor: nothing runs after close, and tell says so") {
  test::EventLog log;
  Runtime runtime(1);
  ActorHost host(runtime);
  ActorHost other(runtime);
  host.arm(Duration::zero(), [&] { log.add("timer"); });
  REQUIRE(host.tell([&] { log.add("message"); }).ok());
  host.close();
  CHECK(host.tell([&] { log.add("late"); }).error().code == ErrorCode::aborted);
  REQUIRE(other.tell([&] { log.add("other"); }).ok());
  runtime.start();
  REQUIRE(log.wait_for(1));
  runtime.stop();
  CHECK(log.lines() == Lines{"other"});
}

TEST_CASE("actor: a runtime without threads serves the thread that runs it, and tells of signals") {
  Runtime runtime;
  ActorHost host(runtime);
  int seen = 0;
  runtime.on_signals({SIGUSR1}, [&](int number) {
    seen = number;
    runtime.stop();
  });
  REQUIRE(host.tell([] { ::raise(SIGUSR1); }).ok());
  runtime.run();
  CHECK(seen == SIGUSR1);
}

}  // namespace
}  // namespace tutti::actor
