// A copy of the ledger, made while it is in use, and putting one back.
//
//   auto backup = ledger->begin_backup(file);
//   while (!*backup->step()) { other work of the ledger's thread }     the copy is synced and whole
//   restore_ledger(file, state_folder)       with no coordinator running there
//
// What is appended meanwhile is in the copy, too. Threads: the ledger's; end it before the ledger.
// Errors: as the ledger's.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "protocol/base/result.h"

namespace tutti::coordinator {

class LedgerBackup {
 public:
  struct State;
  explicit LedgerBackup(std::unique_ptr<State> state);
  ~LedgerBackup();

  // Copies some pages; true: done, the file is durable.
  Result<bool> step();

 private:
  std::unique_ptr<State> state_;
};

// In a state folder where a restore is under way, or was ended by a crash: nobody opens the ledger
// there until another restore has finished.
inline constexpr const char* kLedgerRestoring = "ledger.restoring";

// What a ledger file holds, after every part of it was read and checked.
struct LedgerSummary {
  int version = 0;
  std::uint64_t jobs = 0;
  std::uint64_t workers = 0;
  std::uint64_t facts = 0;  // since the snapshot
  std::uint64_t events = 0;
  std::uint64_t bytes = 0;
};

// Reads the whole file and replays nothing away: it is only looked at. Errors: not_found, corrupt
// (what is wrong), unsupported (newer, or not a ledger).
Result<LedgerSummary> inspect_ledger(const std::filesystem::path& file);

// Puts a checked copy of `file` in the place of the folder's ledger, which is kept beside it as
// ledger.sqlite.replaced. Whenever it is ended, the old ledger or the new one is there whole, or
// nobody starts on it until it was done again. Errors: those of inspect_ledger; already_exists (a
// coordinator runs there).
Result<LedgerSummary> restore_ledger(const std::filesystem::path& file,
                                     const std::filesystem::path& folder);

}  // namespace tutti::coordinator
