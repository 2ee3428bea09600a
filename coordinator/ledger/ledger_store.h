// What Ledger keeps open, and how its rows are told from damaged ones. Private to this folder.
//
// Rows of `records` have numbers that stay theirs, so that a snapshot writes what has changed: the
// kind above 56 bits, below it the number of the job or process, or one that was given to the
// worker, user or key when it was written first (keys: in their order). A ledger whose rows were
// numbered otherwise (an older version's: its `counters` have no `records_keyed`) is written whole
// once.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "coordinator/ledger/ledger.h"
#include "coordinator/ledger/seals.h"
#include "coordinator/ledger/sqlite.h"

namespace tutti::coordinator {

// Kinds of rows in `records`.
enum class RecordKind : std::uint64_t { job = 1, process = 2, worker = 3, key = 4, usage = 5 };

// The column `kind` of facts and records: the kind in its low 16 bits, above it 32 bits of a check
// of the body (FNV-1a, folded). Without a check: written by version 1.
inline constexpr int kKindBits = 16;
inline constexpr std::uint64_t kKindMask = (1U << kKindBits) - 1;

inline std::uint64_t check_of(std::string_view body) {
  const std::uint64_t hash = hash_of_body(body);
  return (hash ^ hash >> 32) & 0xffffffffULL;
}

inline std::uint64_t marked(std::uint64_t kind, std::string_view body) {
  return kind | check_of(body) << kKindBits;
}

// The kind, if the body is what was written with it.
Result<std::uint64_t> kind_of(std::uint64_t column, std::string_view body);

// The numbers of rows in `records`, and the sum over them (seals.h).
struct RowBook {
  bool keyed = false;
  std::map<std::string, std::uint64_t> workers;
  std::map<std::string, std::uint64_t> users;
  std::uint64_t next = 1;  // for those
  std::uint64_t first_key = 1;
  std::uint64_t next_key = 1;
  std::uint64_t seal = 0;
};

struct Ledger::Store {
  Database database;
  LedgerOptions options;
  std::optional<Statement> add_fact;
  std::optional<Statement> add_event;
  std::optional<Statement> drop_events;
  std::optional<Statement> put_access;
  std::optional<Statement> drop_access;
  std::optional<Statement> add_audit;
  std::optional<Statement> drop_audit;
  std::optional<Statement> put_seal;
  std::uint64_t next_fact = 1;
  std::uint64_t facts = 0;
  std::uint64_t facts_seal = 0;
  RowBook rows;
  std::uint32_t log_pages = 0;  // as the newest commit left it; 0: all are in the file

  Result<> prepare();
  void watch_log();
  // Before anything is appended. Errors: those of a log that is at its limit and stays there.
  Result<> make_room();
  Result<> checkpoint();
  Result<bool> lengthen_log();
  Result<> add_facts(std::span<const Fact> facts, std::uint64_t& seal);
  Result<> add_events(std::span<const Event> events);
  Result<> add_access(const LedgerBatch& batch);
  Result<> add_changes(std::span<const AuditRecord> audit);
  // Fills `rows`, too.
  Result<> read_records(Snapshot& out);
};

template <class Record>
Result<> take(Result<Record> record, std::vector<Record>& into) {
  if (!record) return std::move(record).error().with_context("ledger");
  into.push_back(*std::move(record));
  return {};
}

inline Result<> run(Statement& statement) {
  const Result<bool> done = statement.step();
  return done ? Result<>{} : done.error();
}

}  // namespace tutti::coordinator
