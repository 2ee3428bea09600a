#include "ops/cli/faults/aftermath.h"

#include <fmt/core.h>
#include <unistd.h>

#include <boost/describe/enum_to_string.hpp>
#include <boost/json/array.hpp>
#include <boost/json/parse.hpp>

#include <algorithm>
#include <filesystem>
#include <thread>

#include "coordinator/cluster/durable.h"
#include "coordinator/ledger/ledger.h"
#include "ops/cli/client/fields.h"
#include "ops/cli/up/state_files.h"
#include "protocol/base/clock.h"
#include "protocol/base/file.h"
#include "worker/launcher/launcher.h"
#include "worker/launcher/process_plan.h"

namespace tutti::cli {

namespace fs = std::filesystem;
namespace json = boost::json;

namespace {

constexpr std::uint64_t kManifestBytesMax = std::uint64_t{64} << 20;
constexpr std::size_t kBackupBytesMax = std::size_t{512} << 20;

// A folder of this run's own, removed with everything in it.
class Scratch {
 public:
  Scratch() {
    std::error_code failed;
    std::string name = (fs::temp_directory_path(failed) / "tutti-faults-XXXXXX").string();
    if (!failed && ::mkdtemp(name.data()) != nullptr) path_ = name;
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

// The mark of the worker of the `tutti up` on this state folder; empty: there is none.
std::string local_mark() {
  const fs::path folder = default_state_folder();
  if (!read_up_state(folder)) return "";
  std::error_code failed;
  const fs::path state = fs::canonical(folder / "worker", failed);
  return failed ? "" : fmt::format("{}={}", worker::kWorkerMark, state.string());
}

Result<std::vector<std::int64_t>> processes_of(Api& api, std::uint64_t job,
                                               const std::string& mark) {
  const Result<json::value> nodes = api.get("/api/v1/nodes");
  if (!nodes) return nodes.error();
  std::vector<std::int64_t> out;
  for (const json::value& node : list_of(*nodes, "nodes")) {
    for (const json::value& process : list_of(node, "processes")) {
      if (static_cast<std::uint64_t>(whole_of(process, "job")) == job) {
        out.push_back(whole_of(process, "pid"));
      }
    }
  }
  if (mark.empty()) return out;
  for (const pid_t pid : worker::find_marked({mark, fmt::format("TUTTI_JOB={}", job)})) {
    if (std::find(out.begin(), out.end(), pid) == out.end()) out.push_back(pid);
  }
  return out;
}

// The replayed record of a job. `folder` holds ledger.sqlite.
Result<LedgerSeen> replay(const fs::path& folder, std::uint64_t job) {
  auto ledger = coordinator::Ledger::open({.folder = folder});
  if (!ledger) return ledger.error();
  const Result<coordinator::Past> past = (*ledger)->recover();
  if (!past) return past.error();
  coordinator::Durable durable;
  durable.restore(past->snapshot);
  for (const coordinator::Fact& fact : past->facts) durable.apply(fact);
  const coordinator::JobRecord* record = durable.job(JobId{job});
  if (record == nullptr) {
    return Error{ErrorCode::corrupt, fmt::format("the ledger knows no job {}", job)};
  }
  LedgerSeen out;
  out.state = boost::describe::enum_to_string(record->state, "unknown");
  out.generation = record->generation.value;
  out.charges = {record->failures_user, record->failures_infrastructure, record->failures_own_here};
  for (const auto& checkpoint : record->checkpoints) out.checkpoints.push_back(checkpoint.step);
  out.last_event = past->last_event;
  return out;
}

LedgerSeen unseen(std::string problem) {
  LedgerSeen out;
  out.problem = std::move(problem);
  return out;
}

}  // namespace

void look_for_processes(Api& api, FaultHistory& history, std::chrono::milliseconds within) {
  const std::string mark = local_mark();
  const Instant until = monotonic_now() + within;
  while (true) {
    const Result<std::vector<std::int64_t>> found = processes_of(api, history.job.id, mark);
    history.left_known = found.ok();
    if (found) history.left = *found;
    if ((found && found->empty()) || monotonic_now() >= until) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

std::string checkpoint_problem(const std::string& folder) {
  const Result<std::string> text = read_file(fs::path(folder) / "manifest.json", kManifestBytesMax);
  if (!text) return "it has no manifest";
  boost::system::error_code failed;
  const json::value whole = json::parse(*text, failed);
  if (failed) return "its manifest is not JSON";
  const json::array& files = list_of(member_of(whole, "manifest"), "files");
  if (files.empty()) return "its manifest lists no files";
  for (const json::value& file : files) {
    std::error_code missing;
    const std::string name = text_of(file, "name");
    const auto bytes = static_cast<std::int64_t>(fs::file_size(fs::path(folder) / name, missing));
    if (missing) return fmt::format("{} is missing", name);
    if (bytes != whole_of(file, "bytes")) {
      return fmt::format("{} has {} bytes, not {}", name, bytes, whole_of(file, "bytes"));
    }
  }
  return "";
}

void look_at_checkpoints(const json::value& job, FaultHistory& history) {
  if (!is_terminal(job)) {
    history.checkpoints_unseen = "the job goes on, and prunes them";
    return;
  }
  for (const json::value& checkpoint : list_of(job, "checkpoints")) {
    const std::string folder = text_of(checkpoint, "folder");
    std::error_code failed;
    if (!fs::exists(fs::path(folder).parent_path(), failed)) {
      history.checkpoints_unseen = folder + " is not on this machine";
      return;
    }
    history.checkpoints.push_back(
        {static_cast<std::uint64_t>(whole_of(checkpoint, "step")), checkpoint_problem(folder)});
  }
}

LedgerSeen look_at_ledger(Api& api, std::uint64_t job) {
  std::string content;
  bool too_long = false;
  const Result<> copied =
      api.post_stream("/api/v1/ledger/backup", json::object{}, [&](std::string_view part) {
        too_long = too_long || content.size() + part.size() > kBackupBytesMax;
        if (!too_long) content.append(part);
      });
  if (!copied) return unseen("no copy of it was to be had: " + copied.error().message);
  if (too_long) return unseen("its copy is larger than 512 MiB");
  const Scratch scratch;
  if (scratch.path().empty()) return unseen("there is no folder for temporary files");
  const fs::path file = scratch.path() / "ledger.sqlite";
  if (Result<> written = write_file_atomically(file, content, 0600); !written) {
    return unseen(written.error().message);
  }
  Result<LedgerSeen> seen = replay(scratch.path(), job);
  if (seen) return *std::move(seen);
  LedgerSeen damaged = unseen(seen.error().message);
  damaged.damaged = true;
  return damaged;
}

}  // namespace tutti::cli
