#include "tests/unit/ledger/ledger_samples.h"

namespace tutti::coordinator::test {
namespace {

using tutti::test::TemporaryFolder;

TEST_CASE("ledger: events are found by kind, worker and time, page by page") {
  const TemporaryFolder folder;
  auto ledger = open_ledger(folder.path());
  std::vector<Event> events;
  for (std::uint64_t seq = 1; seq <= 20; ++seq) {
    Event event = event_of(seq, seq % 3 + 1);
    event.kind = seq % 2 == 0 ? EventKind::running : EventKind::failed;
    if (seq % 5 == 0) event.worker = "a";
    events.push_back(event);
  }
  REQUIRE(ledger->append({}, events).ok());
  const auto failed = ledger->query_events({.kinds = {EventKind::failed}});
  REQUIRE(failed.ok());
  CHECK(failed->events.size() == 10);
  CHECK(failed->next == 20);
  CHECK_FALSE(failed->more);
  const auto of_worker = ledger->query_events({.worker = "a", .since_unix_ms = 10'000});
  REQUIRE(of_worker->events.size() == 3);
  CHECK(of_worker->events[0].seq == 10);
  // A page is as many rows as were looked at, so that a rare kind is found by going on.
  const auto page = ledger->query_events({.after = 4, .limit = 3, .kinds = {EventKind::running}});
  CHECK(page->more);
  CHECK(page->next == 7);
  CHECK(page->events.size() == 1);
}

TEST_CASE(
    "ledger: a reader of a job's events goes on behind all there are, and misses none of it") {
  const TemporaryFolder folder;
  auto ledger = open_ledger(folder.path());
  const auto append = [&](std::uint64_t seq, std::uint64_t job) {
    const Event event = event_of(seq, job);
    REQUIRE(ledger->append({}, {&event, 1}).ok());
  };
  CHECK(ledger->query_events({.job = JobId{1}})->next == 0);
  for (std::uint64_t seq = 1; seq <= 6; ++seq) append(seq, seq <= 3 ? 1 : 2);
  // Rows of its own are left: they are next.
  const auto part = ledger->query_events({.job = JobId{1}, .limit = 2});
  CHECK(part->more);
  CHECK(part->next == 2);
  const auto rest = ledger->query_events({.after = part->next, .job = JobId{1}, .limit = 2});
  REQUIRE(rest->events.size() == 1);
  CHECK(rest->events[0].seq == 3);
  CHECK_FALSE(rest->more);
  CHECK(rest->next == 6);
  append(7, 1);
  const auto news = ledger->query_events({.after = rest->next, .job = JobId{1}});
  REQUIRE(news->events.size() == 1);
  CHECK(news->events[0].seq == 7);
  // A cursor that is ahead of all stays there.
  CHECK(ledger->query_events({.after = 9, .job = JobId{1}})->next == 9);
}

TEST_CASE("ledger: tokens and changes are there after a restart, and numbers are not reused") {
  const TemporaryFolder folder;
  AccessRecord record;
  record.id = 1;
  record.user = "ann";
  record.hash = "h";
  AccessRecord gone = record;
  gone.id = 2;
  AuditRecord audit;
  audit.seq = 1;
  audit.user = "admin";
  audit.action = "token create";
  {
    auto ledger = open_ledger(folder.path());
    const std::vector<AccessChange> changes{{record, false}, {gone, false}, {gone, true}};
    REQUIRE(ledger->append({.access = changes, .audit = {&audit, 1}}).ok());
    REQUIRE(ledger->write_snapshot({}).ok());
  }
  auto ledger = open_ledger(folder.path());
  const auto past = ledger->recover();
  REQUIRE(past.ok());
  CHECK(past->access == std::vector<AccessRecord>{record});
  CHECK(past->last_access == 2);
  CHECK(past->last_audit == 1);
  CHECK(*ledger->audit(0, 10) == std::vector<AuditRecord>{audit});
  CHECK(ledger->audit(1, 10)->empty());
}

}  // namespace
}  // namespace tutti::coordinator::test
