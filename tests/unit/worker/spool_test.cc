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
  Spools spools(folder.path());
  REQUIRE(spools.open(kOwner));
  REQUIRE(spools.find(kOwner.process) != nullptr);
  CHECK(spools.find(kOwner.process)->log.size() == 12);
  spools.remove(kOwner.process);
  CHECK(find_spools(folder.path()).empty());
}

TEST_CASE(
    "spool: of one that rests no file is open, and it is read, cut and removed all the same") {
  const test::TemporaryFolder folder;
  const auto open_files = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"),
                         std::filesystem::directory_iterator());
  };
  const auto before = open_files();
  Spools spools(folder.path());
  const std::string text((std::size_t{1} << 20) + 10, 'x');
  REQUIRE(spools.open(kOwner));
  spools.find(kOwner.process)->log.append(text + "end\n");
  CHECK(open_files() == before + 1);
  spools.rest(kOwner.process);
  CHECK(spools.resting() == 1);
  CHECK(open_files() == before);
  CHECK(spools.find(kOwner.process) == nullptr);
  CHECK(spools.all_stored());
  CHECK(spools.read(kOwner.process, &Spool::log, text.size(), 4) == "end\n");
  CHECK(spools.read(kOwner.process, &Spool::steps, 0, 0).empty());
  spools.drop_before(kOwner.process, &Spool::log, text.size());
  CHECK(spools.read(kOwner.process, &Spool::log, 0, 3) == std::string(3, '\0'));
  CHECK(spools.read(kOwner.process, &Spool::log, text.size(), 4) == "end\n");
  CHECK(open_files() == before);
  SECTION("what somebody has removed is blank lines") {
    std::filesystem::remove_all(folder.path());
    CHECK(spools.read(kOwner.process, &Spool::log, text.size(), 4) == "\n\n\n\n");
  }
  spools.remove(kOwner.process);
  CHECK(spools.resting() == 0);
  CHECK(find_spools(folder.path()).empty());
}

TEST_CASE("spool: what is in memory only, or not synced yet, does not rest") {
  const test::TemporaryFolder folder;
  Spools spools(folder.path());
  REQUIRE(spools.open(kOwner));
  spools.find(kOwner.process)->steps.append("{}\n");
  spools.rest(kOwner.process);
  CHECK(spools.resting() == 0);
  const int before = syncs;
  REQUIRE(spools.sync_steps(kOwner.job));
  CHECK(syncs == before + 1);
  spools.rest(kOwner.process);
  CHECK(spools.resting() == 1);

  Spools nowhere("/proc/nowhere");
  REQUIRE(nowhere.open(kOwner));
  nowhere.find(kOwner.process)->log.append("hello\n");
  nowhere.rest(kOwner.process);
  CHECK(nowhere.resting() == 0);
  CHECK_FALSE(nowhere.all_stored());
  CHECK(nowhere.read(kOwner.process, &Spool::log, 0, 6) == "hello\n");
}

TEST_CASE("spool: one without a word leaves nothing when it rests") {
  const test::TemporaryFolder folder;
  Spools spools(folder.path());
  REQUIRE(spools.open(kOwner));
  spools.rest(kOwner.process);
  CHECK(spools.resting() == 0);
  CHECK(spools.find(kOwner.process) == nullptr);
  CHECK(spools.read(kOwner.process, &Spool::log, 0, 10).empty());
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

TEST_CASE("spool: what is found of another boot may lack its end, what was made since does not") {
  const test::TemporaryFolder folder;
  const SpoolOwner later{
      .job = JobId{7}, .generation = Generation{2}, .process = ProcessId{13}, .rank = 3};
  const auto write = [&](const SpoolOwner& owner) {
    Spool spool;
    REQUIRE(open_spool(folder.path(), owner, spool));
    spool.log.append("text\n");
  };
  mark_boot(folder.path(), "one");
  write(kOwner);
  mark_boot(folder.path(), "one");  // another worker of the same boot
  CHECK_FALSE(is_cut(folder.path(), kOwner));
  mark_boot(folder.path(), "two");
  CHECK(is_cut(folder.path(), kOwner));
  write(later);
  mark_boot(folder.path(), "two");
  CHECK(is_cut(folder.path(), kOwner));  // it was not sent yet
  CHECK_FALSE(is_cut(folder.path(), later));
  CHECK(find_spools(folder.path()).size() == 2);
  Spools spools(folder.path());
  REQUIRE(spools.open(kOwner));
  spools.remove(kOwner.process);
  CHECK(find_spools(folder.path()).size() == 1);
}
