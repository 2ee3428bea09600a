// The coordinator's memory on disk: an append-only journal of facts with snapshots, and the events
// that people read.
//
// SQLite with a write-ahead log and full sync: when append returns, the batch survives a loss of
// power, whole or not at all. A snapshot replaces all facts before it. One coordinator holds the
// file at a time.
//
//   auto ledger = Ledger::open({.folder = state});
//   auto past = ledger->recover();          snapshot, then facts, in order
//   ledger->append(facts, events);          durable
//   if (ledger->facts_since_snapshot() >= kFactsPerSnapshot)
//   ledger->write_snapshot(state.snapshot());
//
// Threads: one. Limits: kEventsMax events are kept, the oldest are dropped (first_event() tells
// readers of the gap). Errors: exhausted (disk full: nothing of the batch is kept, trying again
// later may work), permission_denied (read-only or foreign folder), already_exists (another
// coordinator holds it), unsupported (a newer version wrote it), corrupt; anything else is
// unavailable, and whether the batch was kept is not known: restart and recover.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "coordinator/cluster/cluster_facts.h"
#include "coordinator/cluster/cluster_records.h"
#include "protocol/base/ids.h"
#include "protocol/base/result.h"

namespace tutti::coordinator {

// Replay takes a few milliseconds a thousand facts; a snapshot of a full history takes longer than
// these facts.
inline constexpr std::uint64_t kFactsPerSnapshot = 20'000;
inline constexpr std::uint64_t kEventsMax = 100'000;
// What one read of events returns at most.
inline constexpr std::uint32_t kEventsPerReadMax = 1'000;
inline constexpr int kLedgerVersion = 1;

struct LedgerOptions {
  std::filesystem::path folder;  // holds ledger.sqlite; must be there
  std::uint64_t events_max = kEventsMax;
  std::uint32_t pages_max = 0;  // of 4 KiB; 0: as the disk allows. Beyond: exhausted
};

struct Past {
  Snapshot snapshot;
  std::vector<Fact> facts;
  std::uint64_t last_event = 0;
};

class Ledger {
 public:
  static Result<std::unique_ptr<Ledger>> open(const LedgerOptions& options);
  ~Ledger();
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  Result<Past> recover();
  Result<> append(std::span<const Fact> facts, std::span<const Event> events);
  Result<> write_snapshot(const Snapshot& snapshot);
  std::uint64_t facts_since_snapshot() const;

  // Events with a number above `after`, oldest first, of one job or (zero) of all.
  struct EventQuery {
    std::uint64_t after = 0;
    JobId job = {};
    std::uint32_t limit = kEventsPerReadMax;
  };
  Result<std::vector<Event>> events(const EventQuery& query) const;
  // The oldest event that is kept; 0: there are none.
  Result<std::uint64_t> first_event() const;

 private:
  struct Store;
  explicit Ledger(std::unique_ptr<Store> store);

  std::unique_ptr<Store> store_;
};

}  // namespace tutti::coordinator
