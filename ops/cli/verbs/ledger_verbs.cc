// tutti ledger backup | restore | check: the coordinator's memory, kept and put back.
#include <fmt/core.h>
#include <unistd.h>

#include <boost/json/object.hpp>

#include <cerrno>
#include <filesystem>
#include <memory>

#include "coordinator/ledger/ledger_backup.h"
#include "ops/cli/client/connection.h"
#include "ops/cli/client/fields.h"
#include "ops/cli/text/table.h"
#include "ops/cli/verbs.h"
#include "protocol/base/file.h"

namespace tutti::cli {

namespace fs = std::filesystem;

namespace {

std::string describe(const coordinator::LedgerSummary& summary) {
  const auto counted = [](std::uint64_t count, std::string_view what) {
    return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
  };
  return fmt::format("{}, {}, {} since its snapshot, {}", counted(summary.jobs, "job"),
                     counted(summary.workers, "worker"), counted(summary.facts, "fact"),
                     print_bytes_short(summary.bytes));
}

int tell(const Session& session, const std::string& sentence,
         const coordinator::LedgerSummary& summary) {
  print(session.json() ? json_line(boost::json::object{{"jobs", summary.jobs},
                                                       {"workers", summary.workers},
                                                       {"facts", summary.facts},
                                                       {"events", summary.events},
                                                       {"bytes", summary.bytes},
                                                       {"version", summary.version}})
                       : sentence + ": " + describe(summary) + '\n');
  return kDone;
}

int back_up(const std::string& name, const Session& session) {
  std::error_code failed;
  const fs::path file = fs::absolute(name, failed);
  const fs::path partial = file.string() + ".partial";
  Connection connection;
  std::string content;
  const Result<> copied =
      connection.api().post_stream("/api/v1/ledger/backup", boost::json::object{},
                                   [&](std::string_view part) { content.append(part); });
  if (!copied) return fail(copied.error());
  // Checked before it takes the name: an older backup stays if this one is not whole.
  if (Result<> written = write_file_atomically(partial, content, 0600); !written)
    return fail(written.error());
  const auto summary = coordinator::inspect_ledger(partial);
  if (!summary) {
    fs::remove(partial, failed);
    return fail(summary.error());
  }
  fs::rename(partial, file, failed);
  if (failed) return fail(errno_error("cannot write " + file.string(), failed.value()));
  return tell(session, file.string(), *summary);
}

struct RestoreOptions {
  std::string file;
  std::string state;
};

int restore(const RestoreOptions& options, const Session& session) {
  const fs::path folder = options.state.empty() ? default_state_folder() : fs::path(options.state);
  const auto summary = coordinator::restore_ledger(options.file, folder);
  if (!summary) return fail(summary.error());
  return tell(session, "restored into " + folder.string(), *summary);
}

int check(const std::string& file, const Session& session) {
  const auto summary = coordinator::inspect_ledger(file);
  if (!summary) return fail(summary.error());
  return tell(session, file + " is whole", *summary);
}

}  // namespace

Action declare_ledger_backup(Arguments& arguments) {
  auto file = std::make_shared<std::string>();
  arguments.word("FILE", *file, "where the copy goes");
  arguments.epilogue("Copies the ledger while the cluster goes on, and checks the copy.");
  return [file](Session& session) { return back_up(*file, session); };
}

Action declare_ledger_restore(Arguments& arguments) {
  auto options = std::make_shared<RestoreOptions>();
  arguments.word("FILE", options->file, "a backup, or a ledger.sqlite with its -wal beside it");
  arguments.option("--state", options->state, "state folder (default: $TUTTI_STATE, else XDG's)");
  arguments.epilogue(
      "With no coordinator running there. FILE is checked first; the ledger that was there is kept "
      "as\n"
      "ledger.sqlite.replaced. One that was cut off is run again; no coordinator starts before.\n"
      "Jobs that were submitted after FILE was made are not known any more. What they left stays: "
      "their\n"
      "folders, and their logs and records in jobs/ID/records.replaced, until a ledger that knows "
      "them is\n"
      "put back. New jobs get numbers above theirs.\n"
      "Files that other programs copied while a coordinator ran (ledger.sqlite first, then its "
      "-wal)\n"
      "are restored, or refused if its log began anew meanwhile; `ledger backup` is never "
      "refused.");
  return [options](Session& session) { return restore(*options, session); };
}

Action declare_ledger_check(Arguments& arguments) {
  auto file = std::make_shared<std::string>();
  arguments.word("FILE", *file, "a backup, or a copied ledger.sqlite");
  return [file](Session& session) { return check(*file, session); };
}

}  // namespace tutti::cli
