// Copies of a ledger that other programs made while it was in use: the file at one moment, the log
// beside it at another.
#include <sqlite3.h>

#include <fstream>

#include "protocol/base/file.h"
#include "tests/unit/ledger/ledger_samples.h"

namespace tutti::coordinator::test {
namespace {

using tutti::test::TemporaryFolder;

struct Moment {
  std::string rows;
  std::string log;
  std::uint64_t jobs = 0;  // durable then
};

void write(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

// The newest job that a restored copy knows; nothing if it is refused.
std::optional<std::uint64_t> restored(const std::string& rows, const std::string& log) {
  const TemporaryFolder copy;
  write(copy.path() / "ledger.sqlite", rows);
  write(copy.path() / "ledger.sqlite-wal", log);
  const auto summary = restore_ledger(copy.path() / "ledger.sqlite", copy.path() / "state");
  if (!summary) {
    INFO(summary.error().message);
    CHECK(summary.error().code == ErrorCode::corrupt);
    return std::nullopt;
  }
  const auto past = open_ledger(copy.path() / "state")->recover();
  REQUIRE(past.ok());
  std::uint64_t newest = past->snapshot.next_job - 1;
  for (const Fact& fact : past->facts) {
    if (const auto* job = std::get_if<JobSubmitted>(&fact)) newest = job->job.value;
  }
  CHECK(newest == past->last_event);
  CHECK(past->access.size() == 1);
  return newest;
}

// A ledger with snapshots, events, tokens that change, and a log that begins anew now and then.
std::vector<Moment> moments_of_a_ledger() {
  const TemporaryFolder folder;
  auto opened = Ledger::open({.folder = folder.path(), .log_pages_max = 1'000});
  REQUIRE(opened.ok());
  const auto& ledger = *opened;
  std::vector<Moment> out;
  std::uint64_t jobs = 0;
  for (int moment = 0; moment < 26; ++moment) {
    for (int batch = 0; batch < 8; ++batch) {
      ++jobs;
      const std::vector<Fact> facts{submitted(jobs, "", std::string(20'000, 's'))};
      const std::vector<Event> events{event_of(jobs)};
      AccessRecord token;
      token.id = 1;
      token.user = "token of " + std::to_string(jobs);
      const std::vector<AccessChange> access{{.record = token, .removed = false}};
      REQUIRE(ledger->append({.facts = facts, .events = events, .access = access}).ok());
    }
    if (moment == 9 || moment == 18) {
      Snapshot snapshot;
      snapshot.next_job = jobs + 1;
      REQUIRE(ledger->write_snapshot(snapshot).ok());
    }
    out.push_back({.rows = *read_file(folder.path() / "ledger.sqlite"),
                   .log = *read_file(folder.path() / "ledger.sqlite-wal"),
                   .jobs = jobs});
  }
  return out;
}

TEST_CASE("copies: a file and a later log give what was durable when it began, or are refused") {
  const std::vector<Moment> moments = moments_of_a_ledger();
  int whole = 0;
  int refused = 0;
  for (std::size_t from = 0; from < moments.size(); from += 3) {
    for (std::size_t to = from; to < moments.size(); to += 1 + (to - from)) {
      INFO("the file as of " << from << ", the log as of " << to);
      const auto newest = restored(moments[from].rows, moments[to].log);
      if (newest) {
        ++whole;
        CHECK(*newest >= moments[from].jobs);
      } else {
        ++refused;
      }
    }
  }
  CHECK(whole >= 9);  // at least where both are of one moment
  CHECK(refused > 0);
}

TEST_CASE("copies: a file whose halves are of two moments is the later one's, or refused") {
  const std::vector<Moment> moments = moments_of_a_ledger();
  for (std::size_t from = 0; from + 2 < moments.size(); from += 4) {
    const std::size_t to = from + 2;
    const std::string& early = moments[from].rows;
    const std::string& late = moments[to].rows;
    const std::size_t half = early.size() / 2 / 4096 * 4096;
    if (late.size() < half) continue;
    INFO("the first half as of " << from << ", the rest and the log as of " << to);
    const auto newest = restored(early.substr(0, half) + late.substr(half), moments[to].log);
    if (newest) CHECK(*newest == moments[to].jobs);
  }
}

TEST_CASE("copies: a log that began anew while it was copied is refused") {
  const TemporaryFolder folder;
  auto ledger = open_ledger(folder.path());
  const std::vector<Fact> facts{submitted(1)};
  REQUIRE(ledger->append(facts, {}).ok());
  std::string log = *read_file(folder.path() / "ledger.sqlite-wal");
  log[16] = static_cast<char>(log[16] ^ 1);  // a new header's salt; the frames are the old ones
  CHECK_FALSE(restored(*read_file(folder.path() / "ledger.sqlite"), log).has_value());
}

TEST_CASE("ledger: rows of another moment are refused, also where each of them is sound") {
  const TemporaryFolder folder;
  {
    auto ledger = open_ledger(folder.path());
    for (std::uint64_t job = 1; job <= 4; ++job) {
      const std::vector<Fact> facts{submitted(job)};
      const std::vector<Event> events{event_of(job)};
      AccessRecord token;
      token.id = job;
      const std::vector<AccessChange> access{{.record = token, .removed = false}};
      AuditRecord audit;
      audit.seq = job;
      const std::vector<AuditRecord> audits{audit};
      REQUIRE(ledger->append({.facts = facts, .events = events, .access = access, .audit = audits})
                  .ok());
    }
    Snapshot snapshot;
    UsageRecord usage;
    usage.owner = "ann";
    snapshot.usage = {usage};
    REQUIRE(ledger->write_snapshot(snapshot).ok());
    const std::vector<Fact> facts{submitted(5), submitted(6)};
    REQUIRE(ledger->append(facts, {}).ok());
  }
  const char* const changes[] = {
      "delete from facts where number = (select max(number) from facts)",
      "insert into records select null, kind, body from records",
      "delete from access where id = 3",
      "update access set body = (select body from access where id = 1) where id = 2",
      "delete from events where seq = 4",
      "delete from audit where seq = 4",
  };
  const std::string sound = *read_file(folder.path() / "ledger.sqlite");
  CHECK(open_ledger(folder.path())->recover().ok());
  for (const char* change : changes) {
    INFO(change);
    const TemporaryFolder other;
    write(other.path() / "ledger.sqlite", sound);
    sqlite3* database = nullptr;
    REQUIRE(sqlite3_open((other.path() / "ledger.sqlite").c_str(), &database) == SQLITE_OK);
    CHECK(sqlite3_exec(database, change, nullptr, nullptr, nullptr) == SQLITE_OK);
    sqlite3_close(database);
    const auto past = open_ledger(other.path())->recover();
    REQUIRE_FALSE(past.ok());
    CHECK(past.error().code == ErrorCode::corrupt);
  }
}

}  // namespace
}  // namespace tutti::coordinator::test
