#include "coordinator/ledger/ledger.h"

#include <fcntl.h>
#include <fmt/core.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "coordinator/ledger/fact_codec.h"
#include "coordinator/ledger/ledger_store.h"
#include "protocol/base/file.h"

namespace tutti::coordinator {

namespace {

// "TUTL", so that another program's database is told from an old ledger.
constexpr int kApplicationId = 0x5455544c;

constexpr const char* kSchema =
    "create table if not exists facts (number integer primary key, kind integer not null,"
    "  body blob not null);"
    "create table if not exists records (number integer primary key, kind integer not null,"
    "  body blob not null);"
    "create table if not exists counters (name text primary key, value integer not null)"
    "  without rowid;"
    "create table if not exists events (seq integer primary key, job integer not null,"
    "  body blob not null);"
    "create index if not exists events_of_job on events (job, seq);"
    "create table if not exists access (id integer primary key autoincrement, body blob not null);"
    "create table if not exists audit (seq integer primary key, body blob not null);"
    // Keys of submits are facts and records (KeyRecord) like all else that is decided by; an older
    // ledger had a second list of them.
    "drop table if exists keys;";

Result<> check_version(sqlite3* database, const std::string& path) {
  const Result<std::uint64_t> version = single_number(database, "pragma user_version");
  if (!version) return version.error();
  const Result<std::uint64_t> application = single_number(database, "pragma application_id");
  if (!application) return application.error();
  if (*version == 0 && *application == 0) return {};
  if (*application != kApplicationId) {
    return Error{ErrorCode::unsupported, fmt::format("{} is not a ledger of Tutti", path)};
  }
  if (*version > kLedgerVersion) {
    return Error{
        ErrorCode::unsupported,
        fmt::format("{} was written by a newer Tutti (format {}, this one knows {}); start "
                    "that version, or restore a backup",
                    path, *version, kLedgerVersion)};
  }
  return {};
}

}  // namespace

Result<> Ledger::Store::prepare() {
  const std::pair<std::optional<Statement>*, std::string_view> statements[] = {
      {&add_fact, "insert into facts values (?, ?, ?)"},
      {&add_event, "insert into events values (?, ?, ?)"},
      {&drop_events, "delete from events where seq <= ?"},
      {&put_access, "insert or replace into access values (?, ?)"},
      {&drop_access, "delete from access where id = ?"},
      {&add_audit, "insert into audit values (?, ?)"},
      {&drop_audit, "delete from audit where seq <= ?"},
  };
  for (const auto& [out, sql] : statements) {
    Result<Statement> statement = Statement::prepare(database.get(), sql);
    if (!statement) return statement.error();
    out->emplace(*std::move(statement));
  }
  Result<Statement> seals = prepare_seal(database.get());
  if (!seals) return seals.error();
  put_seal.emplace(*std::move(seals));
  const Result<std::uint64_t> last =
      single_number(database.get(), "select coalesce(max(number), 0) from facts");
  if (!last) return last.error();
  const Result<std::uint64_t> count = single_number(database.get(), "select count(*) from facts");
  if (!count) return count.error();
  next_fact = *last + 1;
  facts = *count;
  const Result<std::uint64_t> seal = seal_of_rows(database.get(), "facts");
  if (!seal) return seal.error();
  facts_seal = *seal;
  return {};
}

static Result<> limit_pages_of(sqlite3* database, std::uint32_t pages_max) {
  return execute(database, fmt::format("pragma max_page_count = {}", pages_max));
}

Result<> Ledger::limit_pages(std::uint32_t pages_max) {
  return limit_pages_of(store_->database.get(), pages_max);
}

Ledger::Ledger(std::unique_ptr<Store> store) : store_(std::move(store)) {}
Ledger::~Ledger() = default;

Result<std::unique_ptr<Ledger>> Ledger::open(const LedgerOptions& options) {
  std::error_code failed;
  if (std::filesystem::exists(options.folder / kLedgerRestoring, failed)) {
    return Error{ErrorCode::unavailable,
                 fmt::format("a restore of the ledger in {} was interrupted; run `tutti ledger "
                             "restore FILE` again to finish it",
                             options.folder.string())};
  }
  const std::string path = (options.folder / "ledger.sqlite").string();
  // Made here, so that neither it nor the log beside it, which takes over its mode, is ever
  // readable by others. If it cannot be made, SQLite says why.
  // Closed again before SQLite opens it: later that would take its locks away.
  FileDescriptor made(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  made.reset();
  Result<Database> database = open_database(path);
  if (!database) return database.error();
  sqlite3* raw = database->get();
  // Exclusive: the lock is held from the first access on, so a second coordinator is refused here.
  if (Result<> set = execute(raw, "pragma locking_mode = exclusive"); !set) return set.error();
  if (Result<> known = check_version(raw, path); !known) return known.error();
  // The marks are written once: a ledger on a full disk can be opened.
  const Result<std::uint64_t> version = single_number(raw, "pragma user_version");
  if (!version) return version.error();
  const std::string marks =
      *version == kLedgerVersion
          ? std::string()
          : fmt::format("pragma application_id = {}; pragma user_version = {};", kApplicationId,
                        kLedgerVersion);
  // A version that writes no seals may have had it meanwhile.
  const std::string_view unseal =
      marks.empty() ? "" : "delete from counters where name glob 'seal_*';";
  const std::string setup = fmt::format(
      "pragma journal_mode = wal; pragma synchronous = full; {} {} {}", kSchema, unseal, marks);
  if (Result<> set = execute(raw, setup); !set) {
    return std::move(set).error().with_context(path);
  }
  if (options.pages_max != 0) {
    if (Result<> set = limit_pages_of(raw, options.pages_max); !set) return set.error();
  }
  auto store = std::make_unique<Store>();
  store->database = *std::move(database);
  store->options = options;
  if (Result<> prepared = store->prepare(); !prepared) return prepared.error();
  store->watch_log();
  return std::unique_ptr<Ledger>(new Ledger(std::move(store)));
}

Result<> Ledger::Store::add_facts(std::span<const Fact> batch, std::uint64_t& seal) {
  std::uint64_t number = next_fact;
  for (const Fact& fact : batch) {
    const EncodedFact encoded = encode_fact(fact);
    const std::uint64_t kind = marked(encoded.kind, encoded.body);
    seal += row_seal(number, kind);
    add_fact->bind(1, number++);
    add_fact->bind(2, kind);
    add_fact->bind(3, std::string_view(encoded.body));
    if (Result<> added = run(*add_fact); !added) return added;
  }
  return batch.empty() ? Result<>{} : write_seal(*put_seal, "facts", seal);
}

Result<> Ledger::Store::add_events(std::span<const Event> events) {
  for (const Event& event : events) {
    const std::string body = encode_event(event);
    add_event->bind(1, event.seq);
    add_event->bind(2, event.job.value);
    add_event->bind(3, std::string_view(body));
    if (Result<> added = run(*add_event); !added) return added;
  }
  if (events.empty()) return {};
  if (Result<> sealed = write_seal(*put_seal, "last_event", events.back().seq); !sealed)
    return sealed;
  if (events.back().seq <= options.events_max) return {};
  drop_events->bind(1, events.back().seq - options.events_max);
  return run(*drop_events);
}

Result<> Ledger::Store::add_access(const LedgerBatch& batch) {
  for (const AccessChange& change : batch.access) {
    const std::string body = encode_access(change.record);
    Statement& statement = change.removed ? *drop_access : *put_access;
    statement.bind(1, change.record.id);
    if (!change.removed) statement.bind(2, std::string_view(body));
    if (Result<> done = run(statement); !done) return done;
  }
  if (!batch.access.empty()) {
    const Result<std::uint64_t> seal = seal_of_rows(database.get(), "access");
    if (!seal) return seal.error();
    if (Result<> sealed = write_seal(*put_seal, "access", *seal); !sealed) return sealed;
  }
  return add_changes(batch.audit);
}

Result<> Ledger::Store::add_changes(std::span<const AuditRecord> audit) {
  for (const AuditRecord& record : audit) {
    const std::string body = encode_audit(record);
    add_audit->bind(1, record.seq);
    add_audit->bind(2, std::string_view(body));
    if (Result<> done = run(*add_audit); !done) return done;
  }
  if (audit.empty()) return {};
  if (Result<> sealed = write_seal(*put_seal, "last_audit", audit.back().seq); !sealed)
    return sealed;
  if (audit.back().seq <= kAuditMax) return {};
  drop_audit->bind(1, audit.back().seq - kAuditMax);
  return run(*drop_audit);
}

Result<> Ledger::append(const LedgerBatch& batch) {
  if (batch.empty()) return {};
  if (Result<> room = store_->make_room(); !room) return room;
  Result<Transaction> transaction = Transaction::begin(store_->database.get());
  if (!transaction) return transaction.error();
  std::uint64_t seal = store_->facts_seal;
  if (Result<> added = store_->add_facts(batch.facts, seal); !added) return added;
  if (Result<> added = store_->add_events(batch.events); !added) return added;
  if (Result<> added = store_->add_access(batch); !added) return added;
  if (Result<> done = transaction->commit(); !done) return done;
  store_->facts += batch.facts.size();
  store_->next_fact += batch.facts.size();
  store_->facts_seal = seal;
  return {};
}

namespace {

Result<> read_facts(sqlite3* database, std::vector<Fact>& out) {
  Result<Statement> rows =
      Statement::prepare(database, "select number, kind, body from facts order by number");
  if (!rows) return rows.error();
  std::uint64_t before = 0;
  while (true) {
    Result<bool> row = rows->step();
    if (!row) return row.error();
    if (!*row) return {};
    if (before != 0 && rows->number(0) != before + 1) {
      return Error{
          ErrorCode::corrupt,
          fmt::format("ledger: facts after number {} are missing; restore a backup", before)};
    }
    before = rows->number(0);
    const std::string_view body = rows->blob(2);
    const Result<std::uint64_t> kind = kind_of(rows->number(1), body);
    if (!kind) return kind.error();
    Result<Fact> fact = decode_fact(static_cast<std::uint16_t>(*kind), body);
    if (!fact && fact.error().code == ErrorCode::unsupported) {
      return Error{
          ErrorCode::unsupported,
          fmt::format("the ledger was written by a newer Tutti: {}; start that version, or "
                      "restore a backup",
                      fact.error().message)};
    }
    if (!fact) return std::move(fact).error().with_context("ledger");
    out.push_back(*std::move(fact));
  }
}

Result<> read_access(sqlite3* database, Past& out) {
  Result<Statement> rows = Statement::prepare(database, "select body from access order by id");
  if (!rows) return rows.error();
  while (true) {
    Result<bool> row = rows->step();
    if (!row) return row.error();
    if (!*row) break;
    if (Result<> taken = take(decode_access(rows->blob(0)), out.access); !taken) return taken;
  }
  const Result<std::uint64_t> last =
      single_number(database, "select seq from sqlite_sequence where name = 'access'");
  if (!last) return last.error();
  out.last_access = *last;
  const Result<std::uint64_t> audit =
      single_number(database, "select coalesce(max(seq), 0) from audit");
  if (!audit) return audit.error();
  out.last_audit = *audit;
  return {};
}

}  // namespace

Result<Past> Ledger::recover() {
  sqlite3* database = store_->database.get();
  Past past;
  if (Result<> read = store_->read_records(past.snapshot); !read) return read.error();
  const auto counter = [&](const char* name) {
    return single_number(database,
                         fmt::format("select value from counters where name = '{}'", name));
  };
  const Result<std::uint64_t> next_job = counter("next_job");
  if (!next_job) return next_job.error();
  const Result<std::uint64_t> next_process = counter("next_process");
  if (!next_process) return next_process.error();
  past.snapshot.next_job = std::max<std::uint64_t>(1, *next_job);
  past.snapshot.next_process = std::max<std::uint64_t>(1, *next_process);
  if (Result<> read = read_facts(database, past.facts); !read) return read.error();
  const Result<std::uint64_t> last =
      single_number(database, "select coalesce(max(seq), 0) from events");
  if (!last) return last.error();
  past.last_event = *last;
  if (Result<> read = read_access(database, past); !read) return read.error();
  if (Result<> sealed = check_seals(database); !sealed) return sealed.error();
  return past;
}

std::uint64_t Ledger::facts_since_snapshot() const { return store_->facts; }

Result<std::uint64_t> Ledger::first_audit() const {
  return single_number(store_->database.get(), "select coalesce(min(seq), 0) from audit");
}

Result<std::unique_ptr<LedgerBackup>> Ledger::begin_backup(const std::filesystem::path& file) {
  return open_backup(store_->database.get(), file);
}

std::uint64_t Ledger::bytes() const {
  const Result<std::uint64_t> pages = single_number(store_->database.get(), "pragma page_count");
  const Result<std::uint64_t> size = single_number(store_->database.get(), "pragma page_size");
  return pages && size ? *pages * *size : 0;
}

sqlite3* Ledger::database() const { return store_->database.get(); }

Result<std::uint64_t> Ledger::first_event() const {
  return single_number(store_->database.get(), "select coalesce(min(seq), 0) from events");
}

}  // namespace tutti::coordinator
