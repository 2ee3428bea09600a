#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iterator>

#include "protocol/base/file.h"
#include "tests/unit/ledger/ledger_samples.h"

namespace tutti::coordinator::test {
namespace {

using tutti::test::TemporaryFolder;

TEST_CASE("backup: a copy made while the ledger goes on holds a whole state of it") {
  const TemporaryFolder folder;
  const TemporaryFolder other;
  auto ledger = open_ledger(folder.path());
  std::uint64_t next = 1;
  const auto add = [&] {
    const std::vector<Fact> facts{submitted(next, "", std::string(9'000, 's'))};
    REQUIRE(ledger->append(facts, {}).ok());
    ++next;
  };
  while (next <= 400) add();  // some megabytes: several steps
  const auto file = other.path() / "backup";
  auto backup = ledger->begin_backup(file);
  REQUIRE(backup.ok());
  int steps = 0;
  while (true) {
    const Result<bool> done = (*backup)->step();
    REQUIRE(done.ok());
    ++steps;
    if (*done) break;
    add();
  }
  CHECK(steps > 2);
  const std::uint64_t begun = next - 1;
  add();

  const auto summary = restore_ledger(file, other.path() / "state");
  REQUIRE(summary.ok());
  CHECK(summary->jobs == begun);
  const auto facts = facts_of(other.path() / "state");
  REQUIRE(facts.size() == begun + 1);
  CHECK(facts[begun - 1] == submitted(begun, "", std::string(9'000, 's')));
}

TEST_CASE("restore: processes that were started after the copy was made are told from new ones") {
  const TemporaryFolder folder;
  {
    auto ledger = open_ledger(folder.path());
    const std::vector<Fact> facts{
        submitted(1),
        GenerationStarted{.job = JobId{1},
                          .generation = Generation{1},
                          .gang = {{.process = ProcessId{7}, .worker = "a", .incarnation = "1"}}}};
    REQUIRE(ledger->append(facts, {}).ok());
  }
  std::uint64_t next = 8;
  for (const char* again : {"once", "twice"}) {
    INFO(again);
    next += kProcessesPassed;
    const auto from = again == std::string("once") ? folder.path() : folder.path() / "once";
    REQUIRE(restore_ledger(from / "ledger.sqlite", folder.path() / again).ok());
    CHECK(facts_of(folder.path() / again).back() == Fact(NumbersPassed{.next_process = next}));
  }
}

TEST_CASE("backup: it is checked in a folder that nobody could have made before") {
  const TemporaryFolder folder;
  const TemporaryFolder temporary;
  auto ledger = open_ledger(folder.path());
  const std::vector<Fact> facts{submitted(1)};
  REQUIRE(ledger->append(facts, {}).ok());
  const auto file = folder.path() / "copy";
  auto backup = ledger->begin_backup(file);
  REQUIRE(backup.ok());
  while (!*(*backup)->step()) continue;
  // A name that another user of the machine could guess.
  const auto planted = temporary.path() / ("tutti-ledger-" + std::to_string(::getpid())) / "theirs";
  std::filesystem::create_directories(planted);
  const char* const before = std::getenv("TMPDIR");
  const std::string kept = before == nullptr ? "/tmp" : before;
  ::setenv("TMPDIR", temporary.path().c_str(), 1);
  const auto summary = inspect_ledger(file);
  ::setenv("TMPDIR", kept.c_str(), 1);
  REQUIRE(summary.ok());
  CHECK(std::filesystem::exists(planted));
  CHECK(std::filesystem::is_empty(planted));
  CHECK(std::distance(std::filesystem::directory_iterator(temporary.path()), {}) == 1);
}

TEST_CASE("backup: tasks of an array are not counted as jobs, neither begun nor forgotten") {
  const TemporaryFolder folder;
  auto ledger = open_ledger(folder.path());
  const std::vector<Fact> facts{submitted(1, "", "x"),
                                TaskStarted{.job = JobId{2}, .array = JobId{1}, .index = 0},
                                JobForgotten{.job = JobId{2}}, submitted(9, "", "y")};
  REQUIRE(ledger->append(facts, {}).ok());
  const auto file = folder.path() / "copy";
  auto backup = ledger->begin_backup(file);
  REQUIRE(backup.ok());
  while (!*(*backup)->step()) continue;
  CHECK(inspect_ledger(file)->jobs == 2);
}

TEST_CASE("backup: a journal that was copied at any moment is restored to what was durable then") {
  const TemporaryFolder folder;
  auto ledger = open_ledger(folder.path());
  std::uint64_t jobs = 0;
  Snapshot snapshot;
  for (int moment = 0; moment < 60; ++moment) {
    for (int batch = 0; batch < 7; ++batch) {
      ++jobs;
      const std::vector<Fact> facts{
          submitted(jobs, "k" + std::to_string(jobs),
                    std::string(static_cast<std::size_t>(moment) * 400, 'x'))};
      REQUIRE(ledger->append(facts, {}).ok());
    }
    if (moment % 20 == 19) {  // the moments after a snapshot, too
      snapshot.next_job = jobs + 1;
      REQUIRE(ledger->write_snapshot(snapshot).ok());
    }
    const std::uint64_t expected = ledger->facts_since_snapshot();
    const TemporaryFolder copy;
    for (const char* name : {"ledger.sqlite", "ledger.sqlite-wal"})
      std::filesystem::copy_file(folder.path() / name, copy.path() / name);
    const auto restored = restore_ledger(copy.path() / "ledger.sqlite", copy.path() / "state");
    REQUIRE(restored.ok());
    CHECK(facts_of(copy.path() / "state").size() == expected + 1);
  }
}

TEST_CASE(
    "restore: what is no ledger, damaged, newer or in use is refused and nothing is changed") {
  const TemporaryFolder folder;
  const TemporaryFolder other;
  const auto state = other.path() / "state";
  {
    auto ledger = open_ledger(folder.path());
    for (std::uint64_t job = 1; job <= 200; ++job) {
      const std::vector<Fact> facts{submitted(job, "", std::string(3'000, 's'))};
      REQUIRE(ledger->append(facts, {}).ok());
    }
  }
  const auto file = folder.path() / "ledger.sqlite";
  REQUIRE(restore_ledger(file, state).ok());
  const std::string sound = *read_file(file);
  const auto refuse = [&](const std::string& content, ErrorCode code) {
    REQUIRE(write_file_atomically(other.path() / "bad", content).ok());
    const auto refused = restore_ledger(other.path() / "bad", state);
    REQUIRE_FALSE(refused.ok());
    INFO(refused.error().message);
    CHECK(refused.error().code == code);
    CHECK(facts_of(state).size() == 201);
  };
  refuse("not a database at all", ErrorCode::corrupt);
  refuse(sound.substr(0, sound.size() / 2), ErrorCode::corrupt);
  std::string newer = sound;
  newer[63] = 99;  // SQLite's user_version, big endian
  refuse(newer, ErrorCode::unsupported);
  std::string patched = sound;
  patched.replace(patched.find("sssss"), 5, "sstss");
  refuse(patched, ErrorCode::corrupt);

  auto used = open_ledger(state);
  CHECK(restore_ledger(other.path() / "missing", state).error().code == ErrorCode::not_found);
}

TEST_CASE("restore: the ledger that was there is kept beside the new one") {
  const TemporaryFolder folder;
  const TemporaryFolder other;
  for (const auto& [path, jobs] : {std::pair{folder.path(), 3U}, std::pair{other.path(), 5U}}) {
    auto ledger = open_ledger(path);
    for (std::uint64_t job = 1; job <= jobs; ++job) {
      const std::vector<Fact> facts{submitted(job)};
      REQUIRE(ledger->append(facts, {}).ok());
    }
  }
  REQUIRE(restore_ledger(folder.path() / "ledger.sqlite", other.path()).ok());
  CHECK(facts_of(other.path()).size() == 4);
  CHECK(inspect_ledger(other.path() / "ledger.sqlite.replaced")->jobs == 5);
}

}  // namespace
}  // namespace tutti::coordinator::test
