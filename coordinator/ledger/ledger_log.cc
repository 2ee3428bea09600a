// The log beside the ledger's file: what brings its pages into the file, and how long it is kept.
//
// A log that is written over in place is synced by one write of data. One that grows has its size
// and its place on the disk to be synced, too, which is a transaction of the file system's own
// journal: the median of a submit doubles, and its slowest tenth takes ten times as long. So the
// log is made long once, of zeros, and begins anew in the same place. SQLite takes zeros behind the
// last transaction for the end, as it does with what an earlier round left there.
#include <algorithm>
#include <string>

#include "coordinator/ledger/ledger_store.h"

namespace tutti::coordinator {

namespace {

constexpr std::int64_t kPageBytes = 4096;
constexpr std::int64_t kFrameBytes = kPageBytes + 24;
constexpr std::int64_t kHeaderBytes = 32;
// A few milliseconds.
constexpr std::int64_t kStepBytes = std::int64_t{1} << 20;
// SQLite's own calls are of a page; its files take less than 128 KiB at a time.
constexpr std::int64_t kWriteBytes = std::int64_t{64} << 10;

int note_pages(void* pages, sqlite3* /*database*/, const char* /*name*/, int count) {
  *static_cast<std::uint32_t*>(pages) = static_cast<std::uint32_t>(count);
  return SQLITE_OK;
}

sqlite3_file* log_file(sqlite3* database) {
  sqlite3_file* file = nullptr;
  const int result = sqlite3_file_control(database, "main", SQLITE_FCNTL_JOURNAL_POINTER, &file);
  return result == SQLITE_OK && file != nullptr && file->pMethods != nullptr ? file : nullptr;
}

}  // namespace

// In the place of SQLite's own hook, which checkpoints where a commit has made the log long.
void Ledger::Store::watch_log() { sqlite3_wal_hook(database.get(), note_pages, &log_pages); }

Result<> Ledger::Store::make_room() {
  return log_pages < options.log_pages_max ? Result<>{} : checkpoint();
}

Result<> Ledger::Store::checkpoint() {
  int pages = 0;
  int written = 0;
  if (sqlite3_wal_checkpoint_v2(database.get(), "main", SQLITE_CHECKPOINT_PASSIVE, &pages,
                                &written) != SQLITE_OK) {
    return sqlite_error(database.get(), "checkpoint of the ledger");
  }
  // The next transaction begins the log anew.
  if (pages == written) log_pages = 0;
  return {};
}

Result<bool> Ledger::Store::lengthen_log() {
  sqlite3_file* file = log_file(database.get());
  sqlite3_int64 size = 0;
  // One without a transaction is left alone: in a copy it would look like one that was torn.
  if (file == nullptr || log_pages == 0 || file->pMethods->xFileSize(file, &size) != SQLITE_OK ||
      size <= kHeaderBytes) {
    return false;
  }
  const std::int64_t wanted = kHeaderBytes + kLogPages * kFrameBytes;
  const std::int64_t until = std::min(wanted, std::int64_t{size} + kStepBytes);
  if (size >= until) return false;
  const std::string zeros(kWriteBytes, '\0');
  bool done = true;
  while (done && size < until) {
    const std::int64_t bytes = std::min(kWriteBytes, until - std::int64_t{size});
    done = file->pMethods->xWrite(file, zeros.data(), static_cast<int>(bytes), size) == SQLITE_OK;
    size += bytes;
  }
  done = done && file->pMethods->xSync(file, SQLITE_SYNC_NORMAL) == SQLITE_OK;
  // It is as long as it can be: a disk that is full takes the zeros when it is asked again.
  if (!done) return Error{ErrorCode::exhausted, "the ledger's log cannot be made longer"};
  return until < wanted;
}

std::uint32_t Ledger::log_pages() const { return store_->log_pages; }

Result<bool> Ledger::tend() {
  // While there are pages: see lengthen_log.
  const Result<bool> more = store_->lengthen_log();
  if (more && *more) return true;
  if (store_->log_pages < kLogPagesIdle) return more;
  if (Result<> done = store_->checkpoint(); !done) return done.error();
  return false;
}

}  // namespace tutti::coordinator
