#include "coordinator/ledger/ledger_backup.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
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
  explicit Scratch(fs::path path) : path_(std::move(path)) {}
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

// Copies the file, then the log beside it if there is one (a copy of a ledger that was in use),
// into a folder that nobody else may enter.
Result<> copy_ledger(const fs::path& file, const fs::path& folder) {
  std::error_code failed;
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

// A log that began anew while it was copied holds no transaction that is whole, and the file beside
// it may be of an earlier time.
Result<> check_log(const fs::path& file) {
  constexpr std::uintmax_t kLogHeaderBytes = 32;
  std::error_code none;
  const std::uintmax_t bytes = fs::file_size(file.string() + "-wal", none);
  if (none || bytes <= kLogHeaderBytes) return {};
  Result<Database> database = open_database(file.string());
  if (!database) return database.error();
  // Busy, pages in the log, pages written back.
  Result<Statement> log = Statement::prepare(database->get(), "pragma wal_checkpoint(passive)");
  if (!log) return log.error();
  const Result<bool> row = log->step();
  if (!row) return row.error();
  if (log->number(1) != 0) return {};
  return Error{ErrorCode::corrupt,
               fmt::format("{}-wal holds no whole transaction: it began anew while it was copied; "
                           "copy both again, or use `tutti ledger backup`",
                           file.string())};
}

// Events are numbered without gaps.
Result<> check_events(const fs::path& file) {
  Result<Database> database = open_database(file.string());
  if (!database) return database.error();
  const Result<std::uint64_t> missing = single_number(
      database->get(), "select coalesce(max(seq) - min(seq) + 1 - count(*), 0) from events");
  if (!missing) return missing.error();
  if (*missing == 0) return {};
  return Error{ErrorCode::corrupt,
               fmt::format("{}: {} events are missing; copy it again by `tutti ledger backup`, or "
                           "restore a backup",
                           file.string(), *missing)};
}

Result<LedgerSummary> check_copy(const fs::path& file, const fs::path& folder) {
  if (Result<> known = check_magic(file); !known) return known.error();
  if (Result<> copied = copy_ledger(file, folder); !copied) return copied.error();
  if (Result<> whole = check_log(folder / "ledger.sqlite"); !whole) return whole.error();
  // Opened as a ledger first: that replays the log, and says what is no ledger or a newer one.
  Result<LedgerSummary> summary = summarize(folder);
  if (!summary) return summary;
  if (Result<> sound = check_integrity(folder / "ledger.sqlite"); !sound) return sound.error();
  if (Result<> whole = check_events(folder / "ledger.sqlite"); !whole) return whole.error();
  return summary;
}

std::uint64_t next_process_of(const Past& past) {
  std::uint64_t next = past.snapshot.next_process;
  const auto take = [&](const std::vector<Placement>& places) {
    for (const Placement& place : places) next = std::max(next, place.process.value + 1);
  };
  for (const Fact& fact : past.facts) {
    if (const auto* passed = std::get_if<NumbersPassed>(&fact))
      next = std::max(next, passed->next_process);
    if (const auto* started = std::get_if<GenerationStarted>(&fact)) take(started->gang);
    if (const auto* releasing = std::get_if<JobReleasing>(&fact)) take(releasing->newcomers);
  }
  return next;
}

// Processes that were started after the copy was made may live yet, and what they wrote lies among
// the records of their jobs. (A coordinator sees jobs that were submitted since by their folders.)
Result<> pass_numbers(const fs::path& folder) {
  auto ledger = Ledger::open({.folder = folder});
  if (!ledger) return ledger.error();
  const Result<Past> past = (*ledger)->recover();
  if (!past) return past.error();
  const Fact fact = NumbersPassed{.next_process = next_process_of(*past) + kProcessesPassed};
  return (*ledger)->append({.facts = {&fact, 1}});
}

// "" are the rows. The old log belongs to the old file only, and goes before it.
constexpr const char* kSuffixes[] = {"-wal", "-shm", ""};

Result<> move_file(const fs::path& from, const fs::path& to) {
  std::error_code failed;
  if (!fs::exists(from, failed)) return {};
  fs::rename(from, to, failed);
  if (failed) return errno_error("cannot move " + from.string(), failed.value());
  return {};
}

// Moves the checked copy, which is durable in `checked`, to the ledger's place. The mark
// (kLedgerRestoring) holds it from when the first file of the old ledger moves until the new one
// is in place; nobody opens a ledger meanwhile, also after a crash. Once the copy has left the
// mark, what is in the ledger's place is a copy as well, and not to be kept.
Result<> replace_ledger(const fs::path& checked, const fs::path& folder) {
  std::error_code failed;
  const fs::path current = folder / "ledger.sqlite";
  const fs::path kept = folder / "ledger.sqlite.replaced";
  const fs::path mark = folder / kLedgerRestoring;
  const bool resumed = fs::exists(mark, failed);
  const bool moved = resumed && !fs::exists(mark / "ledger.sqlite", failed);
  if (!resumed) {
    for (const char* suffix : kSuffixes) {
      if (fs::exists(current, failed)) fs::remove(kept.string() + suffix, failed);
    }
    if (Result<> done = move_file(checked, mark); !done) return done;
  } else if (!moved) {
    if (Result<> done = move_file(checked / "ledger.sqlite", mark / "ledger.sqlite"); !done)
      return done;
    if (Result<> synced = sync_folder(mark); !synced) return synced;
  }
  if (Result<> synced = sync_folder(folder); !synced) return synced;
  for (const char* suffix : kSuffixes) {
    if (moved) break;
    const fs::path from = current.string() + suffix;
    if (Result<> done = move_file(from, kept.string() + suffix); !done) return done;
  }
  const fs::path from = (moved ? checked : mark) / "ledger.sqlite";
  if (Result<> done = move_file(from, current); !done) return done;
  if (Result<> synced = sync_folder(folder); !synced) return synced;
  fs::remove_all(mark, failed);
  if (failed) return errno_error("cannot remove " + mark.string(), failed.value());
  return sync_folder(folder);
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
  // Its name cannot be known before, and it is nobody else's: what is copied holds secrets.
  std::string made = (fs::temp_directory_path(failed) / "tutti-ledger-XXXXXX").string();
  if (failed) return errno_error("there is no folder for temporary files", failed.value());
  if (::mkdtemp(made.data()) == nullptr) return errno_error("cannot make " + made, errno);
  const Scratch scratch(made);
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
  // What a crash leaves of this is a copy that nobody trusts.
  const fs::path checking = folder / "ledger.checking";
  fs::remove_all(checking, failed);
  if (::mkdir(checking.c_str(), S_IRWXU) != 0)
    return errno_error("cannot make " + checking.string(), errno);
  const Scratch scratch(checking);
  Result<LedgerSummary> summary = check_copy(file, scratch.path());
  if (!summary) return summary;
  if (Result<> passed = pass_numbers(scratch.path()); !passed) return passed.error();
  if (Result<> synced = sync_file(scratch.path() / "ledger.sqlite"); !synced) return synced.error();
  if (Result<> replaced = replace_ledger(scratch.path(), folder); !replaced)
    return replaced.error();
  return summary;
}

}  // namespace tutti::coordinator
