// What readers ask the ledger for: events, changes.
#include <algorithm>
#include <utility>

#include "coordinator/ledger/fact_codec.h"
#include "coordinator/ledger/ledger.h"
#include "coordinator/ledger/sqlite.h"

namespace tutti::coordinator {

namespace {

bool fits(const Ledger::EventQuery& query, const Event& event) {
  const auto& kinds = query.kinds;
  return (kinds.empty() || std::find(kinds.begin(), kinds.end(), event.kind) != kinds.end()) &&
         (query.worker.empty() || event.worker == query.worker) &&
         event.unix_ms >= query.since_unix_ms;
}

}  // namespace

Result<Ledger::EventPage> Ledger::query_events(const EventQuery& query) const {
  // Before the rows are read: none that comes later is behind it.
  const Result<std::uint64_t> newest =
      single_number(database(), "select coalesce(max(seq), 0) from events");
  if (!newest) return newest.error();
  const std::string_view sql =
      query.job ? "select body from events where seq > ? and job = ? order by seq limit ?"
                : "select body from events where seq > ? and job >= ? order by seq limit ?";
  Result<Statement> rows = Statement::prepare(database(), sql);
  if (!rows) return rows.error();
  const std::uint32_t limit = std::min(query.limit, kEventsPerReadMax);
  rows->bind(1, query.after);
  rows->bind(2, query.job.value);
  rows->bind(3, std::uint64_t{limit});
  EventPage page;
  page.next = query.after;
  std::uint32_t seen = 0;
  while (true) {
    Result<bool> row = rows->step();
    if (!row) return row.error();
    if (!*row) break;
    Result<Event> event = decode_event(rows->blob(0));
    if (!event) return std::move(event).error().with_context("ledger");
    ++seen;
    page.next = event->seq;
    if (fits(query, *event)) page.events.push_back(*std::move(event));
  }
  page.more = seen == limit;
  if (!page.more) page.next = std::max(page.next, *newest);
  return page;
}

Result<std::vector<Event>> Ledger::events(const EventQuery& query) const {
  Result<EventPage> page = query_events(query);
  if (!page) return page.error();
  return std::move(page->events);
}

Result<std::vector<AuditRecord>> Ledger::audit(std::uint64_t after, std::uint32_t limit) const {
  Result<Statement> rows =
      Statement::prepare(database(), "select body from audit where seq > ? order by seq limit ?");
  if (!rows) return rows.error();
  rows->bind(1, after);
  rows->bind(2, std::uint64_t{std::min(limit, kEventsPerReadMax)});
  std::vector<AuditRecord> out;
  while (true) {
    Result<bool> row = rows->step();
    if (!row) return row.error();
    if (!*row) return out;
    Result<AuditRecord> record = decode_audit(rows->blob(0));
    if (!record) return std::move(record).error().with_context("ledger");
    out.push_back(*std::move(record));
  }
}

}  // namespace tutti::coordinator
