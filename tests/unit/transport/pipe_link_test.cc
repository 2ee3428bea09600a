#include "protocol/transport/pipe_link.h"

#include <sys/socket.h>

#include <catch2/catch.hpp>

#include <thread>

#include "protocol/wire/link.h"
#include "tests/support/event_log.h"

namespace tutti::transport {
namespace {

using std::chrono::seconds;
using Lines = std::vector<std::string>;

std::string frame_of(const std::string& line) {
  wire::StepReported message;
  message.line = line;
  return *wire::encode_frame<wire::FromRank>(message);
}

std::string line_of(const std::string& frame) {
  wire::FrameCounters counters;
  const auto decoded = wire::decode_frame<wire::FromRank>(frame, counters);
  return decoded ? std::get<wire::StepReported>(decoded->message).line : "bad frame";
}

struct Ends {
  FileDescriptor ours;
  FileDescriptor theirs;
};

Ends make_ends() {
  auto pair = make_pipe_pair();
  REQUIRE(pair.ok());
  return {std::move(pair->first), std::move(pair->second)};
}

TEST_CASE("pipe: frames of several threads arrive whole, and the end of the other is told") {
  Ends ends = make_ends();
  PipeLink reader(std::move(ends.ours));
  std::size_t bytes = 0;
  {
    PipeLink writer(std::move(ends.theirs));
    std::thread threads[3];
    for (std::thread& thread : threads) {
      thread = std::thread([&writer] {
        for (int i = 0; i < 50; ++i)
          static_cast<void>(writer.send(frame_of(std::string(20'000, 'x')), seconds(10)));
      });
    }
    for (int i = 0; i < 150; ++i) {
      const auto frame = reader.receive_within(seconds(10));
      REQUIRE(frame.ok());
      bytes += line_of(*frame).size();
    }
    for (std::thread& thread : threads) thread.join();
  }
  CHECK(bytes == 150u * 20'000u);
  CHECK(reader.receive().error().code == ErrorCode::unavailable);
  CHECK(reader.send(frame_of("x"), seconds(1)).error().code == ErrorCode::unavailable);
}

TEST_CASE("pipe: a write that nobody reads ends at its deadline, and with it the link") {
  Ends ends = make_ends();
  PipeLink writer(std::move(ends.ours));
  const std::string large = frame_of(std::string(1 << 20, 'x'));
  CHECK(writer.send(large, std::chrono::milliseconds(1)).error().code ==
        ErrorCode::deadline_exceeded);
  CHECK(writer.send(large, seconds(1)).error().code == ErrorCode::unavailable);
}

TEST_CASE(
    "pipe: a reader without frames waits no longer than it was told, and shut_down wakes it") {
  Ends ends = make_ends();
  PipeLink reader(std::move(ends.ours));
  CHECK(reader.receive_within(std::chrono::milliseconds(1)).error().code ==
        ErrorCode::deadline_exceeded);
  std::thread other([&] { reader.shut_down(); });
  CHECK(reader.receive().error().code == ErrorCode::unavailable);
  other.join();
}

TEST_CASE("pipe: noise is corrupt on both kinds of link") {
  Ends ends = make_ends();
  const std::string noise(100, 'x');
  REQUIRE(::send(ends.theirs.get(), noise.data(), noise.size(), 0) == 100);
  PipeLink reader(std::move(ends.ours));
  CHECK(reader.receive().error().code == ErrorCode::corrupt);

  Ends others = make_ends();
  REQUIRE(::send(others.theirs.get(), noise.data(), noise.size(), 0) == 100);
  test::EventLog log;
  actor::Runtime runtime(1);
  actor::ActorHost host(runtime);
  AsyncPipeLink link(
      host, std::move(others.ours),
      {.on_frame = [&](std::string) { log.add("frame"); },
       .on_closed = [&](Error reason) { log.add(std::string(to_string(reason.code))); }});
  runtime.start();
  REQUIRE(log.wait_for(1));
  CHECK(log.lines() == Lines{"corrupt"});
  runtime.stop();
}

TEST_CASE("pipe: a worker's end carries frames both ways and tells the end once") {
  Ends ends = make_ends();
  test::EventLog log;
  actor::Runtime runtime(1);
  actor::ActorHost host(runtime);
  AsyncPipeLink link(
      host, std::move(ends.ours),
      {.on_frame =
           [&](std::string frame) {
             log.add(line_of(frame));
             static_cast<void>(link.send(frame_of("to " + line_of(frame))));
           },
       .on_closed = [&](Error reason) { log.add(std::string(to_string(reason.code))); }});
  {
    PipeLink rank(std::move(ends.theirs));
    runtime.start();
    for (int i = 0; i < 3; ++i) {
      REQUIRE(rank.send(frame_of(std::to_string(i)), seconds(10)).ok());
      const auto answer = rank.receive_within(seconds(10));
      REQUIRE(answer.ok());
      CHECK(line_of(*answer) == "to " + std::to_string(i));
    }
  }
  REQUIRE(log.wait_for(4));
  CHECK(log.lines() == Lines{"0", "1", "2", "unavailable"});
  runtime.stop();
}

TEST_CASE("pipe: what a rank does not read is refused beyond the limit") {
  Ends ends = make_ends();
  actor::Runtime runtime;
  actor::ActorHost host(runtime);
  AsyncPipeLink link(host, std::move(ends.ours),
                     {.on_frame = [](std::string) {}, .on_closed = [](Error) {}});
  const std::string large = frame_of(std::string(1 << 20, 'x'));
  Result<> sent;
  int taken = 0;
  while ((sent = link.send(large))) ++taken;
  CHECK(sent.error().code == ErrorCode::exhausted);
  CHECK(taken == 15);
}

}  // namespace
}  // namespace tutti::transport
