#include <catch2/catch.hpp>

#include "tests/unit/worker/worker_fixture.h"

using namespace tutti;
using namespace tutti::worker;
using namespace tutti::worker::test;

namespace {

constexpr ProcessId kProcess{1};

SpoolGrew grew(wire::Stream stream, std::uint64_t size) {
  return {.process = kProcess, .stream = stream, .size = size};
}

wire::SpoolAcked acked(wire::Stream stream, std::uint64_t offset) {
  return {.process = kProcess, .stream = stream, .offset = offset, .end = false};
}

wire::SpoolAcked end_acked(wire::Stream stream, std::uint64_t offset) {
  return {.process = kProcess, .stream = stream, .offset = offset, .end = true};
}

SpoolRead answer(const ReadSpool& read, std::string bytes) {
  return {.process = read.process,
          .stream = read.stream,
          .offset = read.offset,
          .bytes = std::move(bytes)};
}

Worker with_process() {
  Worker worker;
  worker.join();
  worker.order(start_rank(1));
  return worker;
}

TEST_CASE("worker: what was given back to the file system is passed over by its successor") {
  Worker worker;
  worker.on(SpoolFound{.job = JobId{7},
                       .generation = Generation{1},
                       .process = kProcess,
                       .rank = 0,
                       .log_size = 0,
                       .steps_size = 16});
  const auto reads = all<ReadSpool>(worker.join());
  REQUIRE(reads.size() == 2);
  const std::string hole(5, '\0');
  const auto chunk = sent<wire::SpoolData>(worker.on(answer(reads[1], hole + "{}\n{\"ste")));
  CHECK(chunk.at(0).bytes == hole + "{}\n");
  const auto next = all<ReadSpool>(worker.frame(acked(wire::Stream::steps, 8)));
  REQUIRE(next.size() == 1);
  const auto only_hole = sent<wire::SpoolData>(worker.on(answer(next[0], hole + "{\"s")));
  CHECK(only_hole.at(0).bytes == hole);
}

}  // namespace

TEST_CASE(
    "worker: one chunk of a stream is on its way at a time, the next from the acknowledged "
    "offset") {
  Worker worker = with_process();
  const auto read = all<ReadSpool>(worker.on(grew(wire::Stream::log, 5)));
  REQUIRE(read.size() == 1);
  CHECK(read[0].bytes_max == 5);
  const auto chunk = sent<wire::SpoolData>(worker.on(answer(read[0], "hello")));
  REQUIRE(chunk.size() == 1);
  CHECK(chunk[0].bytes == "hello");
  CHECK(chunk[0].job == JobId{7});
  CHECK(all<ReadSpool>(worker.on(grew(wire::Stream::log, 9))).empty());
  const Effects next = worker.frame(acked(wire::Stream::log, 5));
  CHECK(all<TruncateSpool>(next).at(0).offset == 5);
  REQUIRE(all<ReadSpool>(next).size() == 1);
  CHECK(all<ReadSpool>(next)[0].offset == 5);
}

TEST_CASE("worker: an unanswered chunk is sent again, and at once to a new session") {
  Worker worker = with_process();
  const auto read = all<ReadSpool>(worker.on(grew(wire::Stream::log, 5)));
  worker.on(answer(read.at(0), "hello"));
  CHECK(all<ReadSpool>(worker.after(1s)).empty());
  const auto again = all<ReadSpool>(worker.after(1100ms));
  REQUIRE(again.size() == 1);
  CHECK(again[0].offset == 0);
  worker.on(answer(again[0], "hello"));
  worker.lose_link();
  CHECK(all<ReadSpool>(worker.join()).size() == 1);
}

TEST_CASE("worker: step records are spooled as lines and sent as whole lines only") {
  Worker worker = with_process();
  wire::StepReported step;
  step.job = JobId{7};
  step.generation = Generation{1};
  step.process = kProcess;
  step.line = "{\"step\":1}";
  const auto append = all<AppendSpool>(worker.on(RankSpoke{.process = kProcess, .message = step}));
  REQUIRE(append.size() == 1);
  CHECK(append[0].bytes == "{\"step\":1}\n");
  const auto read = all<ReadSpool>(worker.on(grew(wire::Stream::steps, 22)));
  const auto chunk =
      sent<wire::SpoolData>(worker.on(answer(read.at(0), "{\"step\":1}\n{\"step\":")));
  CHECK(chunk.at(0).bytes == "{\"step\":1}\n");
  CHECK(all<ReadSpool>(worker.frame(acked(wire::Stream::steps, 11))).at(0).offset == 11);
}

TEST_CASE(
    "worker: a process is released when it is gone and both its streams have ended with the "
    "coordinator") {
  Worker worker = with_process();
  const auto log = all<ReadSpool>(worker.on(grew(wire::Stream::log, 3)));
  worker.on(answer(log.at(0), "abc"));
  const auto steps = all<ReadSpool>(worker.on(exited(1, 0)));  // of the empty stream: its end
  REQUIRE(steps.size() == 1);
  const auto steps_end = sent<wire::SpoolData>(worker.on(answer(steps[0], "")));
  CHECK(steps_end.at(0).end);
  worker.frame(end_acked(wire::Stream::steps, 0));
  const auto log_end_read = all<ReadSpool>(worker.frame(acked(wire::Stream::log, 3)));
  REQUIRE(log_end_read.size() == 1);
  CHECK(log_end_read[0].bytes_max == 0);
  const auto log_end = sent<wire::SpoolData>(worker.on(answer(log_end_read[0], "")));
  CHECK(log_end.at(0).end);
  CHECK(log_end.at(0).offset == 3);
  const Effects done = worker.frame(end_acked(wire::Stream::log, 3));
  CHECK(all<ReleaseProcess>(done).size() == 1);
  CHECK(all<ReadSpool>(worker.after(10s)).empty());
}

TEST_CASE(
    "worker: who waits for its output to be taken while thousands end is released all the same") {
  Worker worker = with_process();
  worker.order(start_rank(2));
  const auto log = all<ReadSpool>(worker.on(grew(wire::Stream::log, 3)));
  const auto steps = all<ReadSpool>(worker.on(exited(1, 0)));
  // As many as are remembered, and more: of those that are refused, too.
  for (std::uint64_t id = 3; id <= 3 + kEndedMax; ++id) {
    wire::StartRank late = start_rank(id);
    late.slot = start_rank(2).slot;
    CHECK(all<StartProcess>(worker.order(late)).empty());
  }
  CHECK(all<StartProcess>(worker.order(start_rank(1))).empty());  // it is still known to have ended
  worker.on(answer(log.at(0), "abc"));
  worker.on(answer(steps.at(0), ""));
  CHECK(all<ReleaseProcess>(worker.frame(end_acked(wire::Stream::steps, 0))).empty());
  const auto end = all<ReadSpool>(worker.frame(acked(wire::Stream::log, 3)));
  worker.on(answer(end.at(0), ""));
  const Effects done = worker.frame(end_acked(wire::Stream::log, 3));
  REQUIRE(all<ReleaseProcess>(done).size() == 1);
  CHECK(all<ReleaseProcess>(done)[0].process == kProcess);
  // Once.
  CHECK(all<ReleaseProcess>(worker.frame(end_acked(wire::Stream::log, 3))).empty());
}

TEST_CASE(
    "worker: the end of a log whose machine went down is said to be one that may be missing") {
  Worker worker;
  worker.on(SpoolFound{.job = JobId{7},
                       .generation = Generation{1},
                       .process = kProcess,
                       .rank = 0,
                       .log_size = 2,
                       .steps_size = 0,
                       .cut = true});
  const auto left = worker.state.save();
  REQUIRE(left.spools.size() == 1);
  CHECK(left.spools[0].cut);
  const auto reads = all<ReadSpool>(worker.join());
  REQUIRE(reads.size() == 2);
  CHECK_FALSE(sent<wire::SpoolData>(worker.on(answer(reads[0], "o"))).at(0).cut);
  const auto rest = all<ReadSpool>(worker.frame(acked(wire::Stream::log, 1)));
  REQUIRE(rest.size() == 1);
  CHECK(sent<wire::SpoolData>(worker.on(answer(rest[0], "k"))).at(0).cut);
  CHECK_FALSE(sent<wire::SpoolData>(worker.on(answer(reads[1], ""))).at(0).cut);
}

TEST_CASE("worker: spools that an earlier worker left behind are sent on and then released") {
  Worker worker;
  worker.on(SpoolFound{.job = JobId{7},
                       .generation = Generation{1},
                       .process = kProcess,
                       .rank = 0,
                       .log_size = 2,
                       .steps_size = 0});
  const auto reads = all<ReadSpool>(worker.join());
  REQUIRE(reads.size() == 2);
  CHECK(sent<wire::SpoolData>(worker.on(answer(reads[0], "ok"))).at(0).end);
  CHECK(sent<wire::SpoolData>(worker.on(answer(reads[1], ""))).at(0).end);
  worker.frame(end_acked(wire::Stream::log, 2));
  CHECK(all<ReleaseProcess>(worker.frame(end_acked(wire::Stream::steps, 0))).size() == 1);
}
