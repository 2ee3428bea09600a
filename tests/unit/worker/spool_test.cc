#include <sys/syscall.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include <filesystem>
#include <string>

#include "tests/support/temporary_folder.h"
#include "worker/agent/spool.h"

using namespace tutti;
using namespace tutti::worker;

namespace {

constexpr SpoolOwner kOwner{
    .job = JobId{7}, .generation = Generation{2}, .process = ProcessId{12}, .rank = 3};

int syncs = 0;

}  // namespace

// Takes the place of the system's in this program.
extern "C" int fdatasync(int file) {
  ++syncs;
  return static_cast<int>(::syscall(SYS_fdatasync, file));
}

TEST_CASE("spool: what was written is synced when it is asked for, also an earlier worker's") {
  const test::TemporaryFolder folder;
  {
    Spool spool;
    REQUIRE(open_spool(folder.path(), kOwner, spool));
    REQUIRE(spool.steps.sync());
    CHECK(syncs == 0);  // there is nothing
    spool.steps.append("one\n");
    REQUIRE(spool.steps.sync());
    CHECK(syncs == 1);
    REQUIRE(spool.steps.sync());
    CHECK(syncs == 1);
    spool.steps.append("two\n");
  }
  Spool again;
  REQUIRE(open_spool(folder.path(), kOwner, again));
  REQUIRE(again.steps.sync());
  CHECK(syncs == 2);
}

TEST_CASE("spool: what was written is read back, also by the next worker, which finds its owner") {
  const test::TemporaryFolder folder;
  {
    Spool spool;
    REQUIRE(open_spool(folder.path(), kOwner, spool));
    CHECK(spool.log.append("hello ") == 6);
    CHECK(spool.log.append("world\n") == 12);
    CHECK(spool.log.read(6, 100) == "world\n");
    CHECK(spool.log.read(0, 5) == "hello");
    CHECK(spool.log.read(50, 5).empty());
  }
  std::filesystem::create_directory(folder.path() / "something else");
  REQUIRE(find_spools(folder.path()) == std::vector<SpoolOwner>{kOwner});
  Spool again;
  REQUIRE(open_spool(folder.path(), kOwner, again));
  CHECK(again.log.size() == 12);
  remove_spool(again);
  CHECK(find_spools(folder.path()).empty());
}

TEST_CASE("spool: beyond its limit output is dropped but for its end, and a line says how much") {
  const test::TemporaryFolder folder;
  SpoolFile file;
  constexpr std::uint64_t kLimit = std::uint64_t{16} << 20;
  REQUIRE(file.open(folder.path() / "log", kLimit));
  const std::string block(std::size_t{4} << 20, 'x');
  for (int i = 0; i < 4; ++i) file.append(block);
  CHECK(file.size() == kLimit);
  CHECK(file.append(block) == kLimit);
  file.drop_before(std::uint64_t{4} << 20);
  CHECK(file.append("\nlast words\n") == kLimit);  // not enough room yet
  CHECK(file.dropped() == block.size() + 12);
  file.drop_before(kLimit);
  const std::uint64_t end = file.append("kept\n");
  CHECK(file.read(kLimit, end - kLimit) ==
        "\n[tutti: 4194305 bytes of output were dropped here]\nlast words\nkept\n");
  CHECK(file.dropped() == 0);
}

TEST_CASE("spool: what is dropped at the very end is told when the process has ended") {
  SpoolFile log;
  SpoolFile steps(GapLine::omitted);
  for (SpoolFile* file : {&log, &steps}) {
    file->append(std::string(kWaitingBytesMax, 'x'));
    file->append(std::string(3 * kLastWordsBytes, 'y'));
    CHECK(file->append("\nbye\n") == kWaitingBytesMax);
    file->drop_before(kWaitingBytesMax);
  }
  const std::uint64_t log_end = log.finish();
  CHECK(log.read(kWaitingBytesMax, log_end) ==
        "\n[tutti: 196609 bytes of output were dropped here]\nbye\n");
  const std::uint64_t steps_end = steps.finish();
  CHECK(steps.read(kWaitingBytesMax, steps_end) == "bye\n");
}

TEST_CASE("spool: without a disk output waits in memory until it is acknowledged, up to a limit") {
  Spool spool;
  REQUIRE(open_spool("/proc/nowhere", kOwner, spool));
  CHECK(spool.steps.append("one\n") == 4);
  CHECK(spool.steps.append("two\n") == 8);
  CHECK(spool.steps.read(2, 4) == "e\ntw");
  spool.steps.drop_before(4);
  CHECK(spool.steps.read(4, 100) == "two\n");
  CHECK(spool.steps.append(std::string(kWaitingBytesMax, 'x')) == 8);
  CHECK(spool.steps.dropped() == kWaitingBytesMax);
  CHECK(spool.steps.append("three\n") == 14);  // no whole line of it was left
  CHECK(spool.steps.dropped() == 0);
}

TEST_CASE("spool: what a full disk does not take is kept in memory") {
  SpoolFile file;
  REQUIRE(file.open("/dev/full", 1 << 20));
  CHECK(file.append("a\n") == 2);
  CHECK(file.read(0, 10) == "a\n");
  CHECK(file.append("b\n") == 4);
  CHECK(file.read(1, 10) == "\nb\n");
  CHECK(file.dropped() == 0);
}

TEST_CASE("spool: a step record that a worker's death cut short is forgotten by the next worker") {
  const test::TemporaryFolder folder;
  {
    Spool spool;
    REQUIRE(open_spool(folder.path(), kOwner, spool));
    spool.steps.append("{\"step\":1}\n{\"st");
  }
  Spool again;
  REQUIRE(open_spool(folder.path(), kOwner, again));
  CHECK(again.steps.size() == 11);
  CHECK(again.steps.append("{}\n") == 14);
  CHECK(again.steps.read(0, 100) == "{\"step\":1}\n{}\n");
}
