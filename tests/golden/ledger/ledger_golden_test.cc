// What an earlier coordinator wrote into its ledger is read for ever.
//
// v3.txt holds each kind of fact and record with every field set: facts under the number that the
// ledger gives them, records of a snapshot, events, access and audit under 0. v3.sqlite is a whole
// ledger of format 3, with a snapshot, facts behind it and the rest. What is added later goes into
// a file of its own, written by `TUTTI_GOLDEN_OUT=tests/golden/ledger/NAME.txt ledger_golden_test
// "[write]"`; `"[write-ledger]"` writes a whole ledger, for a new format. v1 and v2 are the same of
// formats 1 and 2, made by the code that wrote them (make_older), with what that made of it all.
#include <catch2/catch.hpp>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <type_traits>

#include "coordinator/cluster/durable.h"
#include "coordinator/ledger/fact_codec.h"
#include "coordinator/ledger/ledger.h"
#include "coordinator/ledger/sqlite.h"
#include "tests/golden/kept_bytes.h"
#include "tests/support/temporary_folder.h"

namespace tutti::coordinator {

namespace {

constexpr const char* kFolder = "tests/golden/ledger";

template <class... Types>
struct List {};
using Records = List<JobRecord, ProcessRecord, WorkerRecord, KeyRecord, UsageRecord, Event,
                     AccessRecord, AuditRecord>;

template <class Do, template <class...> class Of, class... Types>
void for_each_type(const Do& action, std::type_identity<Of<Types...>>) {
  (action.template operator()<Types>(), ...);
}

// Of all that a ledger holds: its type, and the number of its kind.
template <class Do>
void for_each_body(const Do& action) {
  for_each_type([&]<class Each>() { action.template operator()<Each>(encode_fact(Each()).kind); },
                std::type_identity<Fact>{});
  for_each_type([&]<class Each>() { action.template operator()<Each>(std::uint16_t{0}); },
                std::type_identity<Records>{});
}

std::vector<std::string> kept(const std::string& name) {
  std::vector<std::string> out;
  for (const golden::Row& row : golden::read_all_rows(kFolder)) {
    if (row.name == name) out.push_back(row.bytes);
  }
  return out;
}

// A history that can be replayed.
std::vector<Fact> submits(std::uint64_t first, std::uint64_t count) {
  std::vector<Fact> out;
  for (std::uint64_t i = 0; i < count; ++i) {
    auto submitted = sample::filled<JobSubmitted>();
    submitted.job = JobId{first + i};
    submitted.key = "key-" + to_string(submitted.job);
    submitted.terms = {};
    submitted.spec = "{name: a, kind: run, command: [\"true\"]}";
    out.emplace_back(submitted);
  }
  return out;
}

}  // namespace

TEST_CASE("golden: every fact and record of an earlier ledger is read, with all that it held") {
  const auto rows = golden::read_all_rows(kFolder);
  REQUIRE_FALSE(rows.empty());
  for (const golden::Row& row : rows) {
    INFO(row.number << " " << row.name);
    bool known = false;
    for_each_body([&]<class Each>(std::uint16_t number) {
      if (golden::name_of<Each>() != row.name) return;
      known = true;
      CHECK(row.number == number);
      CHECK(golden::lost_by<Each>(row.bytes) == "");
    });
    CHECK(known);
    if (row.number != 0) CHECK(decode_fact(row.number, row.bytes).ok());
  }
}

TEST_CASE("golden: every field of every fact and record is kept as it is written today") {
  for_each_body([&]<class Each>(std::uint16_t number) {
    const std::string name = golden::name_of<Each>();
    INFO(number << " " << name);
    INFO(golden::how_to_keep(kFolder, "ledger_golden_test"));
    CHECK(golden::not_kept<Each>(kept(name)) == "");
  });
}

TEST_CASE("golden: a whole ledger of an earlier version is opened and replayed") {
  const test::TemporaryFolder folder;
  std::filesystem::copy_file("tests/golden/ledger/v3.sqlite", folder.path() / "ledger.sqlite");
  const auto ledger = Ledger::open({.folder = folder.path()});
  REQUIRE(ledger);
  const auto past = (*ledger)->recover();
  REQUIRE(past);
  Durable durable;
  durable.restore(past->snapshot);
  for (const Fact& fact : past->facts) durable.apply(fact);
  const Snapshot now = durable.snapshot();
  REQUIRE(now.jobs.size() == 5);
  CHECK(now.jobs[4].job == JobId{5});
  CHECK(now.jobs[0].spec == "{name: a, kind: run, command: [\"true\"]}");
  CHECK(past->facts.size() == 2);
  CHECK(past->snapshot.jobs.size() == 3);
  CHECK(past->last_event == 1);
  REQUIRE(past->access.size() == 1);
  CHECK(past->access[0] == sample::filled<AccessRecord>());
  CHECK(past->last_audit == 1);
  const auto events = (*ledger)->events({});
  REQUIRE(events);
  REQUIRE(events->size() == 1);
  const auto audit = (*ledger)->audit(0, 10);
  REQUIRE(audit);
  REQUIRE(audit->size() == 1);
}

namespace {

// The first thing that the rows of this type hold and the records, in their order, do not.
template <class Record>
std::string lost_of(const std::vector<golden::Row>& rows, const std::vector<Record>& records) {
  std::size_t at = 0;
  for (const golden::Row& row : rows) {
    if (row.name != golden::name_of<Record>()) continue;
    if (at == records.size()) return row.name + " " + std::to_string(at);
    const std::string lost = golden::missing(row.bytes, wire::encode_body(records[at]));
    if (!lost.empty()) return row.name + " " + std::to_string(at) + lost;
    ++at;
  }
  return at == records.size() ? "" : "more than there were of " + golden::name_of<Record>();
}

std::string lost_of(const std::vector<golden::Row>& rows, const Snapshot& state) {
  for (const std::string& lost :
       {lost_of(rows, state.jobs), lost_of(rows, state.processes), lost_of(rows, state.workers),
        lost_of(rows, state.keys), lost_of(rows, state.usage)}) {
    if (!lost.empty()) return lost;
  }
  return {};
}

Durable replayed(const Past& past) {
  Durable out;
  out.restore(past.snapshot);
  for (const Fact& fact : past.facts) out.apply(fact);
  return out;
}

std::uint64_t number_in(const std::filesystem::path& file, std::string_view sql) {
  const auto database = open_database(file.string());
  REQUIRE(database);
  const auto number = single_number(database->get(), sql);
  REQUIRE(number);
  return *number;
}

}  // namespace

TEST_CASE("golden: a ledger of an older format goes on as one of today's, with all that it held") {
  const std::string name = GENERATE("v1", "v2");
  INFO(name);
  const bool access_kept = name == "v2";
  const auto rows = golden::read_rows(std::string(kFolder) + "/" + name + ".state");
  REQUIRE_FALSE(rows.empty());
  const test::TemporaryFolder folder;
  const auto file = folder.path() / "ledger.sqlite";
  std::filesystem::copy_file(std::string(kFolder) + "/" + name + ".sqlite", file);
  CHECK(number_in(file, "pragma user_version") == (access_kept ? 2 : 1));
  // The first of format 2 had a second list of keys.
  if (access_kept) {
    const auto database = open_database(file.string());
    REQUIRE(database);
    REQUIRE(execute(database->get(),
                    "create table keys (key text primary key, job integer not null,"
                    "  spec blob not null, unix_ms integer not null) without rowid;"
                    "insert into keys values ('key-1', 1, x'00', 7)"));
  }
  Snapshot now;
  {
    const auto ledger = Ledger::open({.folder = folder.path()});
    REQUIRE(ledger);
    const auto past = (*ledger)->recover();
    REQUIRE(past);
    CHECK(past->snapshot.jobs.size() == 2);
    CHECK_FALSE(past->facts.empty());
    CHECK(past->last_event == 1);
    CHECK(lost_of(rows, *(*ledger)->events({})) == "");
    CHECK(lost_of(rows, *(*ledger)->audit(0, 10)) == "");
    CHECK(lost_of(rows, past->access) == "");
    CHECK(past->access.size() == (access_kept ? 1 : 0));
    CHECK(past->last_audit == (access_kept ? 1 : 0));
    CHECK(lost_of(rows, replayed(*past).snapshot()) == "");
    // Behind facts of the older version, which had neither checks nor seals.
    REQUIRE((*ledger)->append({.facts = submits(20, 1)}));
  }
  CHECK(number_in(file, "pragma user_version") == static_cast<std::uint64_t>(kLedgerVersion));
  CHECK(number_in(file, "select count(*) from sqlite_master where name = 'keys'") == 0);
  {
    const auto ledger = Ledger::open({.folder = folder.path()});
    REQUIRE(ledger);
    const auto past = (*ledger)->recover();
    REQUIRE(past);
    now = replayed(*past).snapshot();
    REQUIRE(now.jobs.size() > 2);
    CHECK(now.jobs.back().job == JobId{20});
    CHECK_FALSE((*ledger)->takes_changes());
    REQUIRE((*ledger)->write_snapshot(now));
  }
  const auto ledger = Ledger::open({.folder = folder.path()});
  REQUIRE(ledger);
  const auto past = (*ledger)->recover();
  REQUIRE(past);
  CHECK(past->facts.empty());
  CHECK(past->snapshot == now);
  CHECK((*ledger)->takes_changes());
  now.jobs.pop_back();
  CHECK(lost_of(rows, now) == "");
}

TEST_CASE("golden: write the facts and records that no file has", "[.][write]") {
  const char* file = std::getenv("TUTTI_GOLDEN_OUT");
  REQUIRE(file != nullptr);
  std::ofstream out(file);
  out << "# number, name, body; made by: TUTTI_GOLDEN_OUT=FILE ledger_golden_test \"[write]\"\n";
  for_each_body([&]<class Each>(std::uint16_t number) {
    const std::string name = golden::name_of<Each>();
    if (golden::not_kept<Each>(kept(name)).empty()) return;
    golden::write_row(out, {number, name, wire::encode_body(sample::filled<Each>())});
  });
  CHECK(out.good());
}

TEST_CASE("golden: write a whole ledger", "[.][write-ledger]") {
  const char* file = std::getenv("TUTTI_GOLDEN_OUT");
  REQUIRE(file != nullptr);
  const test::TemporaryFolder folder;
  {
    const auto ledger = Ledger::open({.folder = folder.path()});
    REQUIRE(ledger);
    REQUIRE((*ledger)->recover());
    auto event = sample::filled<Event>();
    event.seq = 1;
    auto audit = sample::filled<AuditRecord>();
    audit.seq = 1;
    const std::vector<Fact> facts = submits(1, 3);
    const std::vector<AccessChange> access = {{.record = sample::filled<AccessRecord>()}};
    REQUIRE((*ledger)->append(
        {.facts = facts, .events = {&event, 1}, .access = access, .audit = {&audit, 1}}));
    Durable durable;
    for (const Fact& fact : facts) durable.apply(fact);
    REQUIRE((*ledger)->write_snapshot(durable.snapshot()));
    REQUIRE((*ledger)->append({.facts = submits(4, 2)}));
  }
  std::filesystem::copy_file(folder.path() / "ledger.sqlite", file);
}

}  // namespace tutti::coordinator
