#include <catch2/catch.hpp>

#include <cstdio>
#include <fstream>

#include "coordinator/cluster/durable.h"
#include "coordinator/ledger/fact_codec.h"
#include "coordinator/ledger/ledger.h"
#include "protocol/base/file.h"
#include "tests/support/temporary_folder.h"
#include "tests/unit/coordinator/cluster_driver.h"

namespace tutti::coordinator::test {

namespace {

// A history with every kind of record in it: two jobs, a recovery, a checkpoint.
Driver eventful() {
  Driver driver;
  driver.join("a", 3);
  driver.submit(run_spec(1), "key");
  driver.run_up();
  driver.submit(train_spec(2));
  const auto starts = driver.run_up();
  for (const auto& start : starts) {
    driver.write_part(start, start.generation, 10, {{.name = "part", .bytes = 3, .hash = "h"}});
  }
  driver.exited(starts[1], 0, 9, wire::FailureClass::infrastructure);
  return driver;
}

Snapshot replay(const Past& past) {
  Durable durable;
  durable.restore(past.snapshot);
  for (const Fact& fact : past.facts) durable.apply(fact);
  return durable.snapshot();
}

std::string encode(const Snapshot& snapshot) {
  std::string out;
  for (const auto& job : snapshot.jobs) out += encode_record(job);
  for (const auto& process : snapshot.processes) out += encode_record(process);
  for (const auto& worker : snapshot.workers) out += encode_record(worker);
  return out;
}

std::unique_ptr<Ledger> open(const LedgerOptions& options) {
  auto ledger = Ledger::open(options);
  REQUIRE(ledger.ok());
  return *std::move(ledger);
}

}  // namespace

TEST_CASE("ledger: a replay gives byte-equal state, with and without a snapshot") {
  const tutti::test::TemporaryFolder folder;
  Driver driver = eventful();
  const auto& facts = driver.facts();
  const std::size_t cut = GENERATE(0, 1, 2);  // thirds of the history that are in the snapshot
  {
    auto ledger = open({.folder = folder.path()});
    Durable early;
    const std::size_t before = facts.size() * cut / 3;
    for (std::size_t i = 0; i < facts.size(); ++i) {
      if (i == before) REQUIRE(ledger->write_snapshot(early.snapshot()).ok());
      REQUIRE(ledger->append({&facts[i], 1}, {}).ok());
      early.apply(facts[i]);
    }
    REQUIRE(ledger->append({}, driver.events()).ok());
    CHECK(ledger->facts_since_snapshot() == facts.size() - before);
  }
  auto ledger = open({.folder = folder.path()});
  const auto past = ledger->recover();
  REQUIRE(past.ok());
  CHECK(past->last_event == driver.events().size());
  const Snapshot state = replay(*past);
  CHECK(state == driver.state().snapshot());
  CHECK(encode(state) == encode(driver.state().snapshot()));
}

// With jobs that come and go, keys that are forgotten, and workers and users.
Driver changing() {
  ClusterSettings settings = Driver::default_settings();
  settings.ended_jobs_max = 2;
  Driver driver(settings);
  driver.join("a", 3);
  driver.join("b", 1);
  for (int i = 0; i < 8; ++i) {
    const JobId job = driver.submit(run_spec(1), "key-" + std::to_string(i));
    driver.run_up();
    if (i % 2 == 0) {
      driver.on(CancelJob{.request = driver.next_request(), .job = job, .reason = {}});
    }
    driver.pass(std::chrono::hours(40));
    if (i == 4) driver.join("b", 2);
  }
  return driver;
}

TEST_CASE("ledger: snapshots of what has changed give byte-equal state, over restarts") {
  const tutti::test::TemporaryFolder folder;
  Driver driver = changing();
  const auto& facts = driver.facts();
  REQUIRE(facts.size() > 40);
  const std::size_t each = GENERATE(1, 3, 17);
  auto ledger = open({.folder = folder.path()});
  REQUIRE(ledger->recover().ok());
  Durable state;
  Snapshot before;
  for (std::size_t i = 0; i < facts.size(); ++i) {
    REQUIRE(ledger->append({&facts[i], 1}, {}).ok());
    state.apply(facts[i]);
    if (i % each == 0) {
      const SnapshotChanges changes = state.changes();
      REQUIRE(ledger->write_changes(changes).ok());
      state.begin_changes();
      CHECK(state.changes().size() == 0);
      apply(changes, before);
      CHECK(before == state.snapshot());
    }
    if (i % 20 != 19) continue;
    ledger.reset();
    ledger = open({.folder = folder.path()});
    const auto past = ledger->recover();  // which checks the seals, too
    REQUIRE(past.ok());
    CHECK(replay(*past) == state.snapshot());
    state.restore(past->snapshot);
    for (const Fact& fact : past->facts) state.apply(fact);
  }
  CHECK(state.snapshot() == driver.state().snapshot());
  CHECK(encode(state.snapshot()) == encode(driver.state().snapshot()));
}

TEST_CASE("ledger: a snapshot whose rows an older version numbered is written whole once") {
  const tutti::test::TemporaryFolder folder;
  Driver driver = changing();
  const Snapshot snapshot = driver.state().snapshot();
  REQUIRE(open({.folder = folder.path()})->write_snapshot(snapshot).ok());
  const auto file = folder.path() / "ledger.sqlite";
  std::string bytes = *read_file(file);
  const auto mark = bytes.find("records_keyed");
  REQUIRE(mark != std::string::npos);
  bytes.replace(mark, 13, "records_kez__");
  REQUIRE(write_file_atomically(file, bytes).ok());
  auto ledger = open({.folder = folder.path()});
  const auto past = ledger->recover();
  REQUIRE(past.ok());
  CHECK(replay(*past) == snapshot);
  CHECK_FALSE(ledger->takes_changes());
  Durable state;
  state.restore(past->snapshot);
  CHECK(ledger->write_changes(state.changes()).error().code == ErrorCode::invalid_argument);
  REQUIRE(ledger->write_snapshot(state.snapshot()).ok());
  CHECK(ledger->takes_changes());
  ledger.reset();
  CHECK(replay(*open({.folder = folder.path()})->recover()) == snapshot);
}

TEST_CASE("cluster: jobs are counted by kind and state as they change, and after a restart") {
  Driver driver = changing();
  for (int life = 0; life < 2; ++life) {
    std::map<std::pair<std::string, JobState>, std::uint64_t> expected;
    std::int64_t oldest = 0;
    for (const JobSummary& job : driver.state().jobs()) {
      ++expected[{job.kind, job.state}];
      if (job.state != JobState::queued) continue;
      oldest = oldest == 0 ? job.submitted_unix_ms : std::min(oldest, job.submitted_unix_ms);
    }
    CHECK(expected.size() > 1);
    CHECK(driver.state().job_counts() == expected);
    CHECK(driver.state().oldest_queued_unix_ms() == oldest);
    driver.restart();
  }
}

TEST_CASE("ledger: a journal cut at any byte gives a whole prefix of its batches") {
  const tutti::test::TemporaryFolder folder;
  const tutti::test::TemporaryFolder copy;
  Driver driver = eventful();
  auto ledger = open({.folder = folder.path()});
  // Batches of three facts.
  std::vector<std::size_t> ends{0};
  for (std::size_t i = 0; i < driver.facts().size(); i += 3) {
    const std::size_t count = std::min<std::size_t>(3, driver.facts().size() - i);
    REQUIRE(ledger->append({&driver.facts()[i], count}, {}).ok());
    ends.push_back(i + count);
  }
  const auto database = read_file(folder.path() / "ledger.sqlite");
  const auto journal = read_file(folder.path() / "ledger.sqlite-wal");
  REQUIRE(database.ok());
  REQUIRE(journal.ok());
  std::size_t longest = 0;
  for (std::size_t bytes = 0; bytes <= journal->size(); bytes += 1'009) {
    REQUIRE(write_file_atomically(copy.path() / "ledger.sqlite", *database).ok());
    REQUIRE(
        write_file_atomically(copy.path() / "ledger.sqlite-wal", journal->substr(0, bytes)).ok());
    auto torn = open({.folder = copy.path()});
    const auto past = torn->recover();
    REQUIRE(past.ok());
    CHECK(std::find(ends.begin(), ends.end(), past->facts.size()) != ends.end());
    CHECK(past->facts.size() >= longest);
    longest = past->facts.size();
    CHECK(std::equal(past->facts.begin(), past->facts.end(), driver.facts().begin()));
  }
}

TEST_CASE(
    "ledger: one coordinator at a time, no newer format, no foreign file, no read-only folder") {
  const tutti::test::TemporaryFolder folder;
  const std::string file = folder.path() / "ledger.sqlite";
  SECTION("held") {
    auto ledger = open({.folder = folder.path()});
    CHECK(Ledger::open({.folder = folder.path()}).error().code == ErrorCode::already_exists);
  }
  SECTION("newer") {
    open({.folder = folder.path()});
    std::fstream patch(file, std::ios::in | std::ios::out | std::ios::binary);
    patch.seekp(60);  // SQLite's user_version, big endian
    patch.write("\0\0\0\x63", 4);
    patch.close();
    const auto refused = Ledger::open({.folder = folder.path()});
    REQUIRE(!refused.ok());
    CHECK(refused.error().code == ErrorCode::unsupported);
    CHECK(refused.error().message.find("newer Tutti") != std::string::npos);
  }
  SECTION("foreign") {
    REQUIRE(write_file_atomically(file, std::string(4096, 'x')).ok());
    CHECK(Ledger::open({.folder = folder.path()}).error().code == ErrorCode::corrupt);
  }
  SECTION("read-only") {
    // A folder that nobody can write to, root included.
    CHECK(Ledger::open({.folder = "/proc/self"}).error().code == ErrorCode::permission_denied);
  }
}

TEST_CASE("ledger: its files are the owner's alone") {
  const tutti::test::TemporaryFolder folder;
  auto ledger = open({.folder = folder.path()});
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    INFO(entry.path());
    CHECK(static_cast<int>(entry.status().permissions()) == 0600);
  }
}

TEST_CASE("ledger: a full disk keeps nothing of a batch, and all that was before") {
  const tutti::test::TemporaryFolder folder;
  auto ledger = open({.folder = folder.path(), .pages_max = 40});
  JobSubmitted fact{.job = JobId{1},
                    .key = {},
                    .owner = {},
                    .spec = std::string(10'000, 's'),
                    .folder = {},
                    .terms = {},
                    .unix_ms = 0};
  std::uint64_t kept = 0;
  while (true) {
    const std::vector<Fact> batch(2, fact);
    const auto appended = ledger->append(batch, {});
    if (!appended) {
      CHECK(appended.error().code == ErrorCode::exhausted);
      break;
    }
    kept += 2;
    REQUIRE(kept < 100);
  }
  CHECK(kept > 2);
  const auto past = ledger->recover();
  REQUIRE(past.ok());
  CHECK(past->facts.size() == kept);
  // Room again: the same ledger goes on.
  REQUIRE(ledger->write_snapshot({}).ok());
  CHECK(ledger->append(std::vector<Fact>(2, fact), {}).ok());
}

TEST_CASE("ledger: events are read by cursor and job, and the oldest are dropped") {
  const tutti::test::TemporaryFolder folder;
  auto ledger = open({.folder = folder.path(), .events_max = 10});
  for (std::uint64_t seq = 1; seq <= 15; ++seq) {
    const Event event{.seq = seq, .job = JobId{seq % 2 + 1}, .message = "m"};
    REQUIRE(ledger->append({}, {&event, 1}).ok());
  }
  CHECK(*ledger->first_event() == 6);
  const auto all = ledger->events({.after = 12});
  REQUIRE(all.ok());
  REQUIRE(all->size() == 3);
  CHECK((*all)[0].seq == 13);
  const auto own = ledger->events({.after = 0, .job = JobId{1}, .limit = 2});
  REQUIRE(own->size() == 2);
  CHECK((*own)[1].seq == 8);
}

TEST_CASE("ledger: a fact of an unknown kind or with broken bytes is an error") {
  CHECK(decode_fact(999, "").error().code == ErrorCode::unsupported);
  CHECK(decode_fact(4, "\xc1").error().code == ErrorCode::corrupt);
  const Fact fact = JobWithdrawn{.job = JobId{7}};
  const EncodedFact encoded = encode_fact(fact);
  CHECK(*decode_fact(encoded.kind, encoded.body) == fact);
}

}  // namespace tutti::coordinator::test
