// The coordinator's memory on disk: an append-only journal of facts with snapshots, the events that
// people read, who may do what, and who changed what.
//
// SQLite with a write-ahead log and full sync: when append returns, the batch survives a loss of
// power, whole or not at all. A snapshot replaces all facts before it. One coordinator holds the
// file at a time. Rows of facts and records carry a check of their bytes, facts are numbered
// without gaps, and each part is sealed (seals.h): what the disk has lost or changed, or a copy
// brought together from different moments, is an error, not another history.
//
//   auto ledger = Ledger::open({.folder = state});
//   auto past = ledger->recover();          snapshot, then facts, in order
//   ledger->append({.facts = facts, .events = events});          durable
//   if (ledger->facts_since_snapshot() >= kFactsPerSnapshot)
//   ledger->write_changes(state.changes()), state.begin_changes();
//   if (nobody waits) ledger->tend();
//
// Whoever appends pays for one write and one sync. What SQLite would do besides while somebody
// waits, tend() does (decision 0056): it brings the log's pages into the file, so that the log
// begins anew, and makes the log as long as it will be, since a sync of a file that has grown is
// two writes.
//
// Threads: one. Limits: kEventsMax events and kAuditMax changes are kept, the oldest are dropped
// (first_event() tells readers of the gap). Errors: exhausted (disk full, quota: nothing of the
// batch is kept, trying again later may work), permission_denied (read-only or foreign folder),
// already_exists (another coordinator holds it), unsupported (a newer version wrote it), corrupt;
// anything else is unavailable, and whether the batch was kept is not known: restart and recover.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "coordinator/access/access_records.h"
#include "coordinator/cluster/cluster_facts.h"
#include "coordinator/cluster/cluster_records.h"
#include "coordinator/ledger/ledger_backup.h"
#include "protocol/base/ids.h"
#include "protocol/base/result.h"

struct sqlite3;

namespace tutti::coordinator {

struct SnapshotChanges;  // coordinator/cluster/durable.h

// A snapshot holds up whoever waits for a decision, so it is written while little has changed; most
// of what it costs is what a fact has cost.
inline constexpr std::uint64_t kFactsPerSnapshot = 1'000;
inline constexpr std::uint64_t kEventsMax = 100'000;
inline constexpr std::uint64_t kAuditMax = 100'000;
// What one read of events returns at most.
inline constexpr std::uint32_t kEventsPerReadMax = 1'000;
inline constexpr int kLedgerVersion = 3;
// Pages of the log. It is kept at the first length; from the second on the pages are brought into
// the file where nobody waits, from the first on in any case; beyond the last, before anything else
// is appended.
inline constexpr std::uint32_t kLogPages = 4'096;  // 16 MiB: some 700 submits
inline constexpr std::uint32_t kLogPagesIdle = 1'000;
inline constexpr std::uint32_t kLogPagesMax = 8'192;

struct LedgerOptions {
  std::filesystem::path folder;  // holds ledger.sqlite; must be there
  std::uint64_t events_max = kEventsMax;
  std::uint32_t pages_max = 0;  // of 4 KiB; 0: as the disk allows. Beyond: exhausted
  std::uint32_t log_pages_max = kLogPagesMax;
};

struct Past {
  Snapshot snapshot;
  std::vector<Fact> facts;
  std::uint64_t last_event = 0;
  std::vector<AccessRecord> access;
  std::uint64_t last_access = 0;  // the greatest number that was ever given
  std::uint64_t last_audit = 0;
};

// What becomes durable together.
struct LedgerBatch {
  std::span<const Fact> facts = {};
  std::span<const Event> events = {};
  std::span<const AccessChange> access = {};
  std::span<const AuditRecord> audit = {};

  bool empty() const { return facts.empty() && events.empty() && access.empty() && audit.empty(); }
};

class Ledger {
 public:
  static Result<std::unique_ptr<Ledger>> open(const LedgerOptions& options);
  ~Ledger();
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  Result<Past> recover();
  Result<> append(const LedgerBatch& batch);
  Result<> append(std::span<const Fact> facts, std::span<const Event> events) {
    return append({.facts = facts, .events = events});
  }
  // Replaces the snapshot, and the facts since.
  Result<> write_snapshot(const Snapshot& snapshot);
  // The same by what has changed since that one: as much work as has been done since, however much
  // there is. Not where it was written by an older version (takes_changes()).
  Result<> write_changes(const SnapshotChanges& changes);
  bool takes_changes() const;
  std::uint64_t facts_since_snapshot() const;

  // As LedgerOptions::pages_max, from here on. Errors: unavailable.
  Result<> limit_pages(std::uint32_t pages_max);

  // Pages of the log that may not be in the file yet.
  std::uint32_t log_pages() const;
  // Some of the work that append leaves: a few milliseconds of it, or those of kLogPages. True:
  // there is more. Errors: exhausted (the disk is full: later), unavailable; what is in the log
  // stays there, and nothing is lost.
  Result<bool> tend();

  // Events with a number above `after`, oldest first, of one job or (zero) of all. Of the other
  // conditions kEventsPerReadMax rows are looked at; `next` is where to go on: where no row is
  // left, behind all there are, also others'. What is dropped behind that a reader has not missed.
  struct EventQuery {
    std::uint64_t after = 0;
    JobId job = {};
    std::uint32_t limit = kEventsPerReadMax;
    std::vector<EventKind> kinds = {};  // empty: all
    std::string worker = {};            // empty: all
    std::int64_t since_unix_ms = 0;
  };
  struct EventPage {
    std::vector<Event> events;
    std::uint64_t next = 0;
    bool more = false;  // rows are left behind `next`
  };
  Result<EventPage> query_events(const EventQuery& query) const;
  Result<std::vector<Event>> events(const EventQuery& query) const;
  // The oldest event that is kept; 0: there are none.
  Result<std::uint64_t> first_event() const;

  Result<std::vector<AuditRecord>> audit(std::uint64_t after, std::uint32_t limit) const;
  Result<std::uint64_t> first_audit() const;

  // Copies the ledger into `file` (which is made, 0600) while it goes on.
  Result<std::unique_ptr<LedgerBackup>> begin_backup(const std::filesystem::path& file);
  std::uint64_t bytes() const;

 private:
  struct Store;
  enum class Rows { whole, changed };
  Result<> write_rows(const SnapshotChanges& changes, Rows rows);
  sqlite3* database() const;
  explicit Ledger(std::unique_ptr<Store> store);

  std::unique_ptr<Store> store_;
};

}  // namespace tutti::coordinator
