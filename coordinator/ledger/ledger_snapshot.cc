// Snapshots: written whole, or what has changed; and read again.
#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "coordinator/cluster/durable.h"
#include "coordinator/ledger/fact_codec.h"
#include "coordinator/ledger/ledger_store.h"

namespace tutti::coordinator {

namespace {

constexpr int kNumberBits = 56;
constexpr std::uint64_t kNumberMask = (std::uint64_t{1} << kNumberBits) - 1;

std::uint64_t row_of(RecordKind kind, std::uint64_t number) {
  return static_cast<std::uint64_t>(kind) << kNumberBits | number;
}

// Writes rows within the caller's transaction, and keeps the book of them.
class RowWriter {
 public:
  static Result<RowWriter> open(sqlite3* database, RowBook book) {
    Result<Statement> put =
        Statement::prepare(database, "insert or replace into records values (?, ?, ?)");
    if (!put) return put.error();
    Result<Statement> find =
        Statement::prepare(database, "select kind from records where number = ?");
    if (!find) return find.error();
    Result<Statement> drop = Statement::prepare(database, "delete from records where number = ?");
    if (!drop) return drop.error();
    return RowWriter(*std::move(put), *std::move(find), *std::move(drop), std::move(book));
  }

  template <class Record>
  Result<> put(RecordKind kind, std::uint64_t number, const Record& record) {
    const std::uint64_t row = row_of(kind, number);
    if (Result<> left = leave_seal(row); !left) return left;
    const std::string body = encode_record(record);
    const std::uint64_t column = marked(static_cast<std::uint64_t>(kind), body);
    put_.bind(1, row);
    put_.bind(2, column);
    put_.bind(3, std::string_view(body));
    if (Result<> done = run(put_); !done) return done;
    book_.seal += row_seal(row, column);
    return {};
  }

  Result<> drop(RecordKind kind, std::uint64_t number) {
    const std::uint64_t row = row_of(kind, number);
    if (Result<> left = leave_seal(row); !left) return left;
    drop_.bind(1, row);
    return run(drop_);
  }

  // Workers and users: by name.
  template <class Record>
  Result<> put(RecordKind kind, std::map<std::string, std::uint64_t>& names,
               const std::string& name, const Record& record) {
    const auto [at, made] = names.try_emplace(name, book_.next);
    if (made) ++book_.next;
    return put(kind, at->second, record);
  }

  Result<> drop(RecordKind kind, std::map<std::string, std::uint64_t>& names,
                const std::string& name) {
    const auto at = names.find(name);
    if (at == names.end()) return {};
    const std::uint64_t number = at->second;
    names.erase(at);
    return drop(kind, number);
  }

  RowBook& book() { return book_; }

 private:
  RowWriter(Statement put, Statement find, Statement drop, RowBook book)
      : put_(std::move(put)),
        find_(std::move(find)),
        drop_(std::move(drop)),
        book_(std::move(book)) {}

  // What is replaced or removed is in the sum no more.
  Result<> leave_seal(std::uint64_t row) {
    find_.bind(1, row);
    const Result<bool> found = find_.step();
    if (!found) return found.error();
    if (!*found) return {};
    book_.seal -= row_seal(row, find_.number(0));
    const Result<bool> end = find_.step();
    return end ? Result<>{} : end.error();
  }

  Statement put_;
  Statement find_;
  Statement drop_;
  RowBook book_;
};

Result<> write_changed(RowWriter& rows, const SnapshotChanges& changes) {
  RowBook& book = rows.book();
  const auto each = [](const auto& all, auto write) -> Result<> {
    for (const auto& one : all) {
      if (Result<> done = write(one); !done) return done;
    }
    return {};
  };
  using enum RecordKind;
  Result<> done = each(changes.jobs, [&](auto& one) { return rows.put(job, one.job.value, one); });
  if (done) done = each(changes.jobs_gone, [&](auto& id) { return rows.drop(job, id.value); });
  if (done) {
    done = each(changes.processes,
                [&](auto& one) { return rows.put(process, one.process.value, one); });
  }
  if (done)
    done = each(changes.processes_gone, [&](auto& id) { return rows.drop(process, id.value); });
  if (done) {
    done = each(changes.workers,
                [&](auto& one) { return rows.put(worker, book.workers, one.worker, one); });
  }
  if (done) {
    done = each(changes.workers_gone,
                [&](auto& name) { return rows.drop(worker, book.workers, name); });
  }
  if (done) {
    done =
        each(changes.usage, [&](auto& one) { return rows.put(usage, book.users, one.owner, one); });
  }
  if (done)
    done = each(changes.usage_gone, [&](auto& name) { return rows.drop(usage, book.users, name); });
  for (std::uint64_t i = 0; done && i < changes.keys_gone; ++i) {
    done = rows.drop(key, book.first_key++);
  }
  if (done)
    done = each(changes.keys, [&](auto& one) { return rows.put(key, book.next_key++, one); });
  return done;
}

SnapshotChanges all_of(const Snapshot& snapshot) {
  SnapshotChanges out{.next_job = snapshot.next_job, .next_process = snapshot.next_process};
  out.jobs = snapshot.jobs;
  out.processes = snapshot.processes;
  out.workers = snapshot.workers;
  out.keys = snapshot.keys;
  out.usage = snapshot.usage;
  return out;
}

}  // namespace

Result<std::uint64_t> kind_of(std::uint64_t column, std::string_view body) {
  const std::uint64_t check = column >> kKindBits;
  if (check != 0 && check != check_of(body))
    return Error{ErrorCode::corrupt, "ledger: a row is not as it was written; restore a backup"};
  return column & kKindMask;
}

Result<> Ledger::write_rows(const SnapshotChanges& changes, Rows rows) {
  sqlite3* database = store_->database.get();
  if (Result<> room = store_->make_room(); !room) return room;
  Result<Transaction> transaction = Transaction::begin(database);
  if (!transaction) return transaction.error();
  const bool whole = rows == Rows::whole;
  const std::string clear = std::string(whole ? "delete from records;" : "") +
                            "delete from facts;"
                            "delete from counters where name not glob 'seal_*'";
  if (Result<> cleared = execute(database, clear); !cleared) return cleared;
  Result<RowWriter> writer = RowWriter::open(database, whole ? RowBook{} : store_->rows);
  if (!writer) return writer.error();
  if (Result<> written = write_changed(*writer, changes); !written) return written;
  const std::string counters = fmt::format(
      "insert into counters values ('next_job', {}), ('next_process', {}), ('records_keyed', 1)",
      changes.next_job, changes.next_process);
  if (Result<> done = execute(database, counters); !done) return done;
  if (Result<> done = write_seal(*store_->put_seal, "records", writer->book().seal); !done)
    return done;
  if (Result<> done = write_seal(*store_->put_seal, "facts", 0); !done) return done;
  if (Result<> done = transaction->commit(); !done) return done;
  store_->facts = 0;
  store_->facts_seal = 0;
  store_->rows = std::move(writer->book());
  store_->rows.keyed = true;
  return {};
}

Result<> Ledger::write_snapshot(const Snapshot& snapshot) {
  return write_rows(all_of(snapshot), Rows::whole);
}

Result<> Ledger::write_changes(const SnapshotChanges& changes) {
  if (!takes_changes())
    return Error{ErrorCode::invalid_argument, "the snapshot before was numbered otherwise"};
  return write_rows(changes, Rows::changed);
}

bool Ledger::takes_changes() const { return store_->rows.keyed; }

Result<> Ledger::Store::read_records(Snapshot& out) {
  const Result<std::uint64_t> keyed =
      single_number(database.get(), "select value from counters where name = 'records_keyed'");
  if (!keyed) return keyed.error();
  const Result<std::uint64_t> seal = seal_of_rows(database.get(), "records");
  if (!seal) return seal.error();
  rows = {};
  rows.seal = *seal;
  Result<Statement> all =
      Statement::prepare(database.get(), "select number, kind, body from records order by number");
  if (!all) return all.error();
  bool any = false;
  while (true) {
    Result<bool> row = all->step();
    if (!row) return row.error();
    if (!*row) break;
    any = true;
    const std::uint64_t number = all->number(0) & kNumberMask;
    const std::string_view body = all->blob(2);
    const Result<std::uint64_t> column = kind_of(all->number(1), body);
    if (!column) return column.error();
    const auto kind = static_cast<RecordKind>(*column);
    Result<> taken = Error{ErrorCode::unsupported, "ledger: a record of an unknown kind"};
    if (kind == RecordKind::job) taken = take(decode_job(body), out.jobs);
    if (kind == RecordKind::process) taken = take(decode_process(body), out.processes);
    if (kind == RecordKind::worker) taken = take(decode_worker(body), out.workers);
    if (kind == RecordKind::key) taken = take(decode_key(body), out.keys);
    if (kind == RecordKind::usage) taken = take(decode_usage(body), out.usage);
    if (!taken) return taken;
    if (kind == RecordKind::worker) rows.workers[out.workers.back().worker] = number;
    if (kind == RecordKind::usage) rows.users[out.usage.back().owner] = number;
    if (kind == RecordKind::worker || kind == RecordKind::usage)
      rows.next = std::max(rows.next, number + 1);
    if (kind != RecordKind::key) continue;
    if (out.keys.size() == 1) rows.first_key = number;
    rows.next_key = number + 1;
  }
  rows.keyed = *keyed == 1 || !any;
  return {};
}

}  // namespace tutti::coordinator
