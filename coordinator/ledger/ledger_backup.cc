#include "coordinator/ledger/ledger_backup.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <set>
#include <utility>

#include "coordinator/ledger/ledger.h"
#include "coordinator/ledger/sqlite.h"
#include "protocol/base/file.h"

namespace tutti::coordinator {

namespace fs = std::filesystem;

namespace {

// 1 MiB at a time: a millisecond or two of the ledger's thread.
constexpr int kPagesPerStep = 256;
constexpr std::string_view kMagic = "SQLite format 3";

Result<> sync_file(const fs::path& file) {
  const FileDescriptor opened(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!opened || ::fsync(opened.get()) != 0)
    return errno_error("cannot sync " + file.string(), errno);
  return sync_folder(file.parent_path());
}

// A folder that is removed with everything in it.
class Scratch {
 public:
  explicit Scratch(fs::path path) : path_(std::move(path)) {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

// Copies the file, with the log beside it if there is one (a copy of a ledger that was in use).
Result<> copy_ledger(const fs::path& file, const fs::path& folder) {
  std::error_code failed;
  fs::create_directories(folder, failed);
  if (failed) return errno_error("cannot make " + folder.string(), failed.value());
  fs::permissions(folder, fs::perms::owner_all, failed);
  const fs::path log = file.string() + "-wal";
  for (const auto& [from, to] :
       {std::pair{file, folder / "ledger.sqlite"}, std::pair{log, folder / "ledger.sqlite-wal"}}) {
    if (from == log && !fs::exists(log, failed)) continue;
    fs::copy_file(from, to, fs::copy_options::overwrite_existing, failed);
    if (failed) return errno_error("cannot copy " + from.string(), failed.value());
    fs::permissions(to, fs::perms::owner_read | fs::perms::owner_write, failed);
  }
  return {};
}

Result<> check_magic(const fs::path& file) {
  const FileDescriptor opened(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!opened) return errno_error("cannot read " + file.string(), errno);
  char head[16] = {};
  const ssize_t count = ::read(opened.get(), head, sizeof head);
  if (count != sizeof head || std::string_view(head, ::strnlen(head, sizeof head)) != kMagic)
    return Error{ErrorCode::corrupt, file.string() + " is not a ledger"};
  return {};
}

// Everything in the ledger of `folder`, read.
Result<LedgerSummary> summarize(const fs::path& folder) {
  LedgerSummary summary;
  auto ledger = Ledger::open({.folder = folder});
  if (!ledger) return ledger.error();
  const Result<Past> past = (*ledger)->recover();
  if (!past) return past.error();
  summary.version = kLedgerVersion;
  summary.facts = past->facts.size();
  // Tasks, which their arrays remember, are not counted: one that is forgotten is none of these.
  std::set<JobId> jobs;
  for (const JobRecord& job : past->snapshot.jobs) {
    if (!job.array) jobs.insert(job.job);
  }
  std::set<std::string> workers;
  for (const WorkerRecord& worker : past->snapshot.workers) workers.insert(worker.worker);
  for (const Fact& fact : past->facts) {
    if (const auto* submitted = std::get_if<JobSubmitted>(&fact)) jobs.insert(submitted->job);
    if (const auto* forgotten = std::get_if<JobForgotten>(&fact)) jobs.erase(forgotten->job);
    if (const auto* withdrawn = std::get_if<JobWithdrawn>(&fact)) jobs.erase(withdrawn->job);
    if (const auto* joined = std::get_if<WorkerJoined>(&fact))
      workers.insert(joined->worker.worker);
    if (const auto* forgotten = std::get_if<WorkerForgotten>(&fact))
      workers.erase(forgotten->worker);
  }
  summary.jobs = jobs.size();
  summary.workers = workers.size();
  summary.events = past->last_event;
  summary.bytes = (*ledger)->bytes();
  return summary;
}

Result<> check_integrity(const fs::path& file) {
  Result<Database> database = open_database(file.string());
  if (!database) return database.error();
  Result<Statement> check = Statement::prepare(database->get(), "pragma integrity_check(1)");
  if (!check) return check.error();
  const Result<bool> row = check->step();
  if (!row) return row.error();
  const std::string found(check->blob(0));
  if (found == "ok") return {};
  return Error{ErrorCode::corrupt, fmt::format("{} is damaged: {}", file.string(), found)};
}

Result<LedgerSummary> check_copy(const fs::path& file, const fs::path& folder) {
  if (Result<> known = check_magic(file); !known) return known.error();
  if (Result<> copied = copy_ledger(file, folder); !copied) return copied.error();
  // Opened as a ledger first: that replays the log, and says what is no ledger or a newer one.
  Result<LedgerSummary> summary = summarize(folder);
  if (!summary) return summary;
  if (Result<> sound = check_integrity(folder / "ledger.sqlite"); !sound) return sound.error();
  return summary;
}

}  // namespace

struct LedgerBackup::State {
  sqlite3_backup* backup = nullptr;
  Database copy;
  fs::path file;

  ~State() {
    if (backup != nullptr) sqlite3_backup_finish(backup);
  }
};

LedgerBackup::LedgerBackup(std::unique_ptr<State> state) : state_(std::move(state)) {}
LedgerBackup::~LedgerBackup() = default;

Result<std::unique_ptr<LedgerBackup>> open_backup(sqlite3* database, const fs::path& file) {
  const FileDescriptor made(::open(file.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!made) return errno_error("cannot make " + file.string(), errno);
  auto state = std::make_unique<LedgerBackup::State>();
  Result<Database> copy = open_database(file.string());
  if (!copy) return copy.error();
  state->copy = *std::move(copy);
  state->file = file;
  state->backup = sqlite3_backup_init(state->copy.get(), "main", database, "main");
  if (state->backup == nullptr) return sqlite_error(state->copy.get(), "backup");
  return std::make_unique<LedgerBackup>(std::move(state));
}

Result<bool> LedgerBackup::step() {
  const int result = sqlite3_backup_step(state_->backup, kPagesPerStep);
  if (result == SQLITE_OK) return false;
  if (result != SQLITE_DONE) {
    sqlite3_backup_finish(std::exchange(state_->backup, nullptr));
    return sqlite_error(state_->copy.get(), "backup");
  }
  if (sqlite3_backup_finish(std::exchange(state_->backup, nullptr)) != SQLITE_OK)
    return sqlite_error(state_->copy.get(), "backup");
  state_->copy.reset();
  if (Result<> synced = sync_file(state_->file); !synced) return synced.error();
  return true;
}

Result<LedgerSummary> inspect_ledger(const fs::path& file) {
  std::error_code failed;
  const fs::path base = fs::temp_directory_path(failed);
  if (failed) return errno_error("there is no folder for temporary files", failed.value());
  const Scratch scratch(base / fmt::format("tutti-ledger-{}", ::getpid()));
  return check_copy(file, scratch.path());
}

Result<LedgerSummary> restore_ledger(const fs::path& file, const fs::path& folder) {
  std::error_code failed;
  fs::create_directories(folder, failed);
  if (failed) return errno_error("cannot make " + folder.string(), failed.value());
  const fs::path lock_file = folder / "coordinator.lock";
  const FileDescriptor lock(::open(lock_file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock) return errno_error("cannot write to " + folder.string(), errno);
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    return Error{ErrorCode::already_exists,
                 "a coordinator runs in " + folder.string() + "; stop it first"};
  }
  const Scratch scratch(folder / "ledger.restoring");
  Result<LedgerSummary> summary = check_copy(file, scratch.path());
  if (!summary) return summary;
  const fs::path current = folder / "ledger.sqlite";
  const fs::path copied = scratch.path() / "ledger.sqlite";
  if (Result<> synced = sync_file(copied); !synced) return synced.error();
  // The old log belongs to the old file only. It goes along, so that both can be put back.
  for (const char* suffix : {"-wal", "-shm", ""}) {
    const fs::path from = current.string() + suffix;
    if (!fs::exists(from, failed)) continue;
    fs::rename(from, folder / (std::string("ledger.sqlite.replaced") + suffix), failed);
    if (failed) return errno_error("cannot move " + from.string(), failed.value());
  }
  fs::rename(copied, current, failed);
  if (failed) return errno_error("cannot put " + current.string(), failed.value());
  if (Result<> synced = sync_folder(folder); !synced) return synced.error();
  return summary;
}

}  // namespace tutti::coordinator
