#include "coordinator/ledger/ledger.h"

#include <fcntl.h>
#include <fmt/core.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "coordinator/ledger/fact_codec.h"
#include "coordinator/ledger/sqlite.h"
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
    "create index if not exists events_of_job on events (job, seq);";

// Kinds of rows in `records`.
enum class RecordKind : std::uint64_t { job = 1, process = 2, worker = 3 };

Result<std::uint64_t> single_number(sqlite3* database, std::string_view sql) {
  Result<Statement> statement = Statement::prepare(database, sql);
  if (!statement) return statement.error();
  Result<bool> row = statement->step();
  if (!row) return row.error();
  return *row ? statement->number(0) : 0;
}

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

struct Ledger::Store {
  Database database;
  LedgerOptions options;
  std::optional<Statement> add_fact;
  std::optional<Statement> add_event;
  std::optional<Statement> drop_events;
  std::uint64_t next_fact = 1;
  std::uint64_t facts = 0;

  Result<> prepare();
};

Result<> Ledger::Store::prepare() {
  const auto make = [&](std::optional<Statement>& out, std::string_view sql) -> Result<> {
    Result<Statement> statement = Statement::prepare(database.get(), sql);
    if (!statement) return statement.error();
    out.emplace(*std::move(statement));
    return {};
  };
  if (Result<> made = make(add_fact, "insert into facts values (?, ?, ?)"); !made) return made;
  if (Result<> made = make(add_event, "insert into events values (?, ?, ?)"); !made) return made;
  if (Result<> made = make(drop_events, "delete from events where seq <= ?"); !made) return made;
  const Result<std::uint64_t> last =
      single_number(database.get(), "select coalesce(max(number), 0) from facts");
  if (!last) return last.error();
  const Result<std::uint64_t> count = single_number(database.get(), "select count(*) from facts");
  if (!count) return count.error();
  next_fact = *last + 1;
  facts = *count;
  return {};
}

Ledger::Ledger(std::unique_ptr<Store> store) : store_(std::move(store)) {}
Ledger::~Ledger() = default;

Result<std::unique_ptr<Ledger>> Ledger::open(const LedgerOptions& options) {
  const std::string path = (options.folder / "ledger.sqlite").string();
  // Made here, so that neither it nor the log beside it, which takes over its mode, is ever
  // readable by others. If it cannot be made, SQLite says why.
  const FileDescriptor made(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
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
  const std::string setup =
      fmt::format("pragma journal_mode = wal; pragma synchronous = full; {} {}", marks, kSchema);
  if (Result<> set = execute(raw, setup); !set) {
    return std::move(set).error().with_context(path);
  }
  if (options.pages_max != 0) {
    const std::string limit = fmt::format("pragma max_page_count = {}", options.pages_max);
    if (Result<> set = execute(raw, limit); !set) return set.error();
  }
  auto store = std::make_unique<Store>();
  store->database = *std::move(database);
  store->options = options;
  if (Result<> prepared = store->prepare(); !prepared) return prepared.error();
  return std::unique_ptr<Ledger>(new Ledger(std::move(store)));
}

Result<> Ledger::append(std::span<const Fact> facts, std::span<const Event> events) {
  if (facts.empty() && events.empty()) return {};
  Result<Transaction> transaction = Transaction::begin(store_->database.get());
  if (!transaction) return transaction.error();
  std::uint64_t number = store_->next_fact;
  for (const Fact& fact : facts) {
    const EncodedFact encoded = encode_fact(fact);
    store_->add_fact->bind(1, number++);
    store_->add_fact->bind(2, std::uint64_t{encoded.kind});
    store_->add_fact->bind(3, std::string_view(encoded.body));
    if (Result<bool> added = store_->add_fact->step(); !added) return added.error();
  }
  for (const Event& event : events) {
    const std::string body = encode_event(event);
    store_->add_event->bind(1, event.seq);
    store_->add_event->bind(2, event.job.value);
    store_->add_event->bind(3, std::string_view(body));
    if (Result<bool> added = store_->add_event->step(); !added) return added.error();
  }
  if (!events.empty() && events.back().seq > store_->options.events_max) {
    store_->drop_events->bind(1, events.back().seq - store_->options.events_max);
    if (Result<bool> dropped = store_->drop_events->step(); !dropped) return dropped.error();
  }
  if (Result<> done = transaction->commit(); !done) return done;
  store_->facts += facts.size();
  store_->next_fact = number;
  return {};
}

Result<> Ledger::write_snapshot(const Snapshot& snapshot) {
  sqlite3* database = store_->database.get();
  Result<Transaction> transaction = Transaction::begin(database);
  if (!transaction) return transaction.error();
  if (Result<> cleared = execute(database,
                                 "delete from records; delete from counters; "
                                 "delete from facts");
      !cleared) {
    return cleared;
  }
  Result<Statement> add = Statement::prepare(database, "insert into records values (null, ?, ?)");
  if (!add) return add.error();
  const auto store = [&](RecordKind kind, const auto& records) -> Result<> {
    for (const auto& record : records) {
      const std::string body = encode_record(record);
      add->bind(1, static_cast<std::uint64_t>(kind));
      add->bind(2, std::string_view(body));
      if (Result<bool> added = add->step(); !added) return added.error();
    }
    return {};
  };
  if (Result<> done = store(RecordKind::job, snapshot.jobs); !done) return done;
  if (Result<> done = store(RecordKind::process, snapshot.processes); !done) return done;
  if (Result<> done = store(RecordKind::worker, snapshot.workers); !done) return done;
  const std::string counters =
      fmt::format("insert into counters values ('next_job', {}), ('next_process', {})",
                  snapshot.next_job, snapshot.next_process);
  if (Result<> done = execute(database, counters); !done) return done;
  if (Result<> done = transaction->commit(); !done) return done;
  store_->facts = 0;
  return {};
}

namespace {

template <class Record>
Result<> take(Result<Record> record, std::vector<Record>& into) {
  if (!record) return std::move(record).error().with_context("ledger");
  into.push_back(*std::move(record));
  return {};
}

Result<> read_records(sqlite3* database, Snapshot& out) {
  Result<Statement> rows =
      Statement::prepare(database, "select kind, body from records order by number");
  if (!rows) return rows.error();
  while (true) {
    Result<bool> row = rows->step();
    if (!row) return row.error();
    if (!*row) return {};
    const auto kind = static_cast<RecordKind>(rows->number(0));
    const std::string_view body = rows->blob(1);
    Result<> taken = Error{ErrorCode::unsupported, "ledger: a record of an unknown kind"};
    if (kind == RecordKind::job) taken = take(decode_job(body), out.jobs);
    if (kind == RecordKind::process) taken = take(decode_process(body), out.processes);
    if (kind == RecordKind::worker) taken = take(decode_worker(body), out.workers);
    if (!taken) return taken;
  }
}

}  // namespace

Result<Past> Ledger::recover() {
  sqlite3* database = store_->database.get();
  Past past;
  if (Result<> read = read_records(database, past.snapshot); !read) return read.error();
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
  Result<Statement> rows =
      Statement::prepare(database, "select kind, body from facts order by number");
  if (!rows) return rows.error();
  while (true) {
    Result<bool> row = rows->step();
    if (!row) return row.error();
    if (!*row) break;
    Result<Fact> fact = decode_fact(static_cast<std::uint16_t>(rows->number(0)), rows->blob(1));
    if (!fact) return std::move(fact).error().with_context("ledger");
    past.facts.push_back(*std::move(fact));
  }
  const Result<std::uint64_t> last =
      single_number(database, "select coalesce(max(seq), 0) from events");
  if (!last) return last.error();
  past.last_event = *last;
  return past;
}

std::uint64_t Ledger::facts_since_snapshot() const { return store_->facts; }

Result<std::vector<Event>> Ledger::events(const EventQuery& query) const {
  const std::string_view sql =
      query.job ? "select body from events where seq > ? and job = ? order by seq limit ?"
                : "select body from events where seq > ? and job >= ? order by seq limit ?";
  Result<Statement> rows = Statement::prepare(store_->database.get(), sql);
  if (!rows) return rows.error();
  rows->bind(1, query.after);
  rows->bind(2, query.job.value);
  rows->bind(3, std::uint64_t{std::min(query.limit, kEventsPerReadMax)});
  std::vector<Event> out;
  while (true) {
    Result<bool> row = rows->step();
    if (!row) return row.error();
    if (!*row) return out;
    Result<Event> event = decode_event(rows->blob(0));
    if (!event) return std::move(event).error().with_context("ledger");
    out.push_back(*std::move(event));
  }
}

Result<std::uint64_t> Ledger::first_event() const {
  return single_number(store_->database.get(), "select coalesce(min(seq), 0) from events");
}

}  // namespace tutti::coordinator
