// What an earlier coordinator wrote into its ledger is read for ever.
//
// v3.txt holds each kind of fact and record with every field set: facts under the number that the
// ledger gives them, records of a snapshot, events, access and audit under 0. v3.sqlite is a whole
// ledger of format 3, with a snapshot, facts behind it and the rest. What is added later goes into
// a file of its own, written by `TUTTI_GOLDEN_OUT=tests/golden/ledger/NAME.txt ledger_golden_test
// "[write]"`; `"[write-ledger]"` writes a whole ledger, for a new format.
#include <catch2/catch.hpp>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <type_traits>

#include "coordinator/cluster/durable.h"
#include "coordinator/ledger/fact_codec.h"
#include "coordinator/ledger/ledger.h"
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
