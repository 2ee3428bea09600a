// The log beside the ledger: how long it is, when it begins anew, and what a crash finds of it.
#include "coordinator/ledger/ledger_backup.h"
#include "protocol/base/file.h"
#include "tests/unit/ledger/ledger_samples.h"

namespace tutti::coordinator::test {
namespace {

namespace fs = std::filesystem;
using tutti::test::TemporaryFolder;

constexpr std::uint64_t kFrameBytes = 4096 + 24;

std::uint64_t log_bytes(const fs::path& folder) {
  return fs::file_size(folder / "ledger.sqlite-wal");
}

class Growing {
 public:
  explicit Growing(std::uint32_t log_pages_max = kLogPagesMax) {
    auto opened = Ledger::open({.folder = folder.path(), .log_pages_max = log_pages_max});
    REQUIRE(opened.ok());
    ledger = *std::move(opened);
  }

  void append(std::uint64_t count) {
    for (std::uint64_t i = 0; i < count; ++i) {
      ++jobs;
      const std::vector<Fact> facts{submitted(jobs, "", std::string(20'000, 's'))};
      const std::vector<Event> events{event_of(jobs)};
      REQUIRE(ledger->append(facts, events).ok());
    }
  }
  void tend() {
    for (int i = 0; i < 100; ++i) {
      const auto more = ledger->tend();
      REQUIRE(more.ok());
      if (!*more) return;
    }
    FAIL("there is no end to it");
  }
  // As the next coordinator finds it after this one was killed.
  std::size_t facts_after_kill() const {
    const TemporaryFolder copy;
    for (const char* name : {"ledger.sqlite", "ledger.sqlite-wal"})
      fs::copy_file(folder.path() / name, copy.path() / name);
    return facts_of(copy.path()).size();
  }
  std::size_t facts_of_copy() const {
    const TemporaryFolder copy;
    const auto summary = restore_ledger(folder.path() / "ledger.sqlite", copy.path());
    if (!summary) FAIL(summary.error().message);
    return summary->facts;
  }

  const TemporaryFolder folder;
  std::unique_ptr<Ledger> ledger;
  std::uint64_t jobs = 0;
};

TEST_CASE("ledger: a log that is tended has its whole length and begins anew in its place") {
  Growing at;
  CHECK_FALSE(*at.ledger->tend());  // there is no log yet
  CHECK((!fs::exists(at.folder.path() / "ledger.sqlite-wal") ||
         log_bytes(at.folder.path()) <= kLogPagesIdle * kFrameBytes));
  at.append(1);
  CHECK(*at.ledger->tend());  // in several steps
  CHECK(at.facts_after_kill() == 1);
  CHECK(at.facts_of_copy() == 1);
  at.tend();
  const std::uint64_t whole = log_bytes(at.folder.path());
  CHECK(whole == 32 + kLogPages * kFrameBytes);
  CHECK(at.ledger->log_pages() > 0);
  CHECK(at.ledger->log_pages() < kLogPagesIdle);  // so it was left at that
  CHECK(at.facts_after_kill() == 1);
  CHECK(at.facts_of_copy() == 1);
  while (at.ledger->log_pages() < kLogPagesIdle) at.append(10);
  CHECK(at.facts_after_kill() == at.jobs);
  at.tend();
  CHECK(at.ledger->log_pages() == 0);
  CHECK(at.facts_after_kill() == at.jobs);
  CHECK(at.facts_of_copy() == at.jobs);
  at.append(1);
  CHECK(at.ledger->log_pages() < 100);
  CHECK(at.facts_after_kill() == at.jobs);
  CHECK(at.facts_of_copy() == at.jobs);
  CHECK(log_bytes(at.folder.path()) == whole);
}

TEST_CASE("ledger: a log that nobody tends stays below its limit, but for a batch") {
  constexpr std::uint32_t kMax = 50;
  Growing at(kMax);
  std::uint32_t most = 0;
  for (int i = 0; i < 40; ++i) {
    at.append(1);
    most = std::max(most, at.ledger->log_pages());
  }
  CHECK(most >= kMax);
  CHECK(most < kMax + 30);
  CHECK(log_bytes(at.folder.path()) < (kMax + 40) * kFrameBytes);
  CHECK(at.facts_after_kill() == at.jobs);
}

}  // namespace
}  // namespace tutti::coordinator::test
