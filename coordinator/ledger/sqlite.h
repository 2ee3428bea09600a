// SQLite, as little of it as the ledger needs, with errors as values. Private to this folder.
//
// Ownership: a Statement must end before its Database. Threads: one.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "protocol/base/result.h"

namespace tutti::coordinator {

struct CloseDatabase {
  void operator()(sqlite3* database) const { sqlite3_close_v2(database); }
};
using Database = std::unique_ptr<sqlite3, CloseDatabase>;

// What SQLite's last error on this database means to the caller (ledger.h).
Error sqlite_error(sqlite3* database, std::string_view doing);

Result<Database> open_database(const std::string& path);

// One or more statements without results.
Result<> execute(sqlite3* database, const std::string& sql);

// The first column of the first row, 0 if there is none.
Result<std::uint64_t> single_number(sqlite3* database, std::string_view sql);

class Statement {
 public:
  static Result<Statement> prepare(sqlite3* database, std::string_view sql);

  // Parameters count from 1. Blobs must live until the next reset.
  void bind(int index, std::uint64_t value);
  void bind(int index, std::string_view blob);

  // true: there is a row; false: done. After false or an error the statement can be bound and
  // stepped again.
  Result<bool> step();
  std::uint64_t number(int column) const;
  std::string_view blob(int column) const;  // until the next step

 private:
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };
  Statement(sqlite3* database, sqlite3_stmt* statement)
      : database_(database), statement_(statement) {}

  sqlite3* database_;
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
};

// begin immediate ... commit; without commit() everything is taken back.
class Transaction {
 public:
  static Result<Transaction> begin(sqlite3* database);
  Transaction(Transaction&& other) noexcept : database_(other.database_) {
    other.database_ = nullptr;
  }
  Transaction& operator=(Transaction&&) = delete;
  ~Transaction();

  Result<> commit();

 private:
  explicit Transaction(sqlite3* database) : database_(database) {}

  sqlite3* database_;
};

class LedgerBackup;
// ledger_backup.h
Result<std::unique_ptr<LedgerBackup>> open_backup(sqlite3* database,
                                                  const std::filesystem::path& file);

}  // namespace tutti::coordinator
