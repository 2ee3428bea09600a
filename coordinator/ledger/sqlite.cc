#include "coordinator/ledger/sqlite.h"

#include <fmt/core.h>

namespace tutti::coordinator {

namespace {

ErrorCode code_of(int result) {
  switch (result & 0xff) {
    case SQLITE_FULL: return ErrorCode::exhausted;
    case SQLITE_BUSY:
    case SQLITE_LOCKED: return ErrorCode::already_exists;
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
    case SQLITE_CANTOPEN: return ErrorCode::permission_denied;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB: return ErrorCode::corrupt;
    default: return ErrorCode::unavailable;
  }
}

}  // namespace

Error sqlite_error(sqlite3* database, std::string_view doing) {
  const int result = database == nullptr ? SQLITE_NOMEM : sqlite3_extended_errcode(database);
  const char* text = database == nullptr ? "out of memory" : sqlite3_errmsg(database);
  return Error{code_of(result), fmt::format("{}: {}", doing, text)};
}

Result<Database> open_database(const std::string& path) {
  sqlite3* raw = nullptr;
  const int result =
      sqlite3_open_v2(path.c_str(), &raw, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nullptr);
  Database database(raw);
  if (result != SQLITE_OK) return sqlite_error(raw, "open " + path);
  return database;
}

Result<> execute(sqlite3* database, const std::string& sql) {
  if (sqlite3_exec(database, sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) {
    return sqlite_error(database, sql.substr(0, sql.find('\n')));
  }
  return {};
}

Result<Statement> Statement::prepare(sqlite3* database, std::string_view sql) {
  sqlite3_stmt* raw = nullptr;
  if (sqlite3_prepare_v2(database, sql.data(), static_cast<int>(sql.size()), &raw, nullptr) !=
      SQLITE_OK) {
    return sqlite_error(database, sql);
  }
  return Statement(database, raw);
}

void Statement::bind(int index, std::uint64_t value) {
  sqlite3_bind_int64(statement_.get(), index, static_cast<sqlite3_int64>(value));
}

void Statement::bind(int index, std::string_view blob) {
  sqlite3_bind_blob64(statement_.get(), index, blob.data(), blob.size(), SQLITE_STATIC);
}

Result<bool> Statement::step() {
  const int result = sqlite3_step(statement_.get());
  if (result == SQLITE_ROW) return true;
  if (result == SQLITE_DONE) {
    sqlite3_reset(statement_.get());
    return false;
  }
  Error error = sqlite_error(database_, sqlite3_sql(statement_.get()));
  sqlite3_reset(statement_.get());
  return error;
}

std::uint64_t Statement::number(int column) const {
  return static_cast<std::uint64_t>(sqlite3_column_int64(statement_.get(), column));
}

std::string_view Statement::blob(int column) const {
  const void* data = sqlite3_column_blob(statement_.get(), column);
  const int bytes = sqlite3_column_bytes(statement_.get(), column);
  return {static_cast<const char*>(data), static_cast<std::size_t>(bytes)};
}

Result<Transaction> Transaction::begin(sqlite3* database) {
  if (Result<> begun = execute(database, "begin immediate"); !begun) return begun.error();
  return Transaction(database);
}

Transaction::~Transaction() {
  // SQLite has rolled back already after some errors; then there is nothing to take back.
  if (database_ != nullptr && sqlite3_get_autocommit(database_) == 0) {
    static_cast<void>(execute(database_, "rollback"));
  }
}

Result<> Transaction::commit() {
  Result<> done = execute(database_, "commit");
  if (done) database_ = nullptr;
  return done;
}

}  // namespace tutti::coordinator
