#include "coordinator/ledger/sqlite.h"

#include <fmt/core.h>

#include <cerrno>
#include <cstring>

namespace tutti::coordinator {

namespace {

// SQLite says "full" for ENOSPC only. A write that failed for another want of room has left no
// commit behind it; a sync that failed may have, so that is not counted here.
bool is_want_of_room(int result, int system_error) {
  return result == SQLITE_IOERR_WRITE &&
         (system_error == ENOSPC || system_error == EDQUOT || system_error == EFBIG);
}

// The system's error behind the last failure: of the log (where transactions go), else of the file.
int system_error_of(sqlite3* database) {
  int number = 0;
  sqlite3_file* log = nullptr;
  if (sqlite3_file_control(database, "main", SQLITE_FCNTL_JOURNAL_POINTER, &log) == SQLITE_OK &&
      log != nullptr && log->pMethods != nullptr) {
    log->pMethods->xFileControl(log, SQLITE_FCNTL_LAST_ERRNO, &number);
  }
  if (number == 0) sqlite3_file_control(database, "main", SQLITE_FCNTL_LAST_ERRNO, &number);
  return number;
}

ErrorCode code_of(int result, int system_error) {
  if (is_want_of_room(result, system_error)) return ErrorCode::exhausted;
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
  const int system_error = database == nullptr ? 0 : system_error_of(database);
  const ErrorCode code = code_of(result, system_error);
  std::string message = fmt::format("{}: {}", doing, text);
  if ((result & 0xff) == SQLITE_IOERR && system_error != 0)
    message += fmt::format(" ({})", std::strerror(system_error));
  return Error{code, std::move(message)};
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

Result<std::uint64_t> single_number(sqlite3* database, std::string_view sql) {
  Result<Statement> statement = Statement::prepare(database, sql);
  if (!statement) return statement.error();
  Result<bool> row = statement->step();
  if (!row) return row.error();
  return *row ? statement->number(0) : 0;
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
