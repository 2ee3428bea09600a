// tutti check --disk: the disks below the folders that a cluster keeps things in.
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ops/cli/client/api.h"
#include "ops/cli/client/fields.h"
#include "ops/cli/disks/disk_check.h"
#include "ops/cli/verbs.h"
#include "protocol/base/cache_folder.h"

namespace tutti::cli {

namespace {

struct DiskCheckOptions {
  bool disk = false;
  double deadline = 20;
  std::vector<std::string> folders;
};

std::vector<FolderCheck> folders_of(const DiskCheckOptions& options) {
  std::vector<FolderCheck> out;
  for (const std::string& folder : options.folders)
    out.push_back({.use = folder, .folder = std::filesystem::absolute(folder)});
  if (!out.empty()) return out;
  const std::filesystem::path state = default_state_folder();
  out.push_back({.use = "state", .folder = state});
  out.push_back({.use = "checkpoints", .folder = state / "jobs"});
  if (const auto cache = cache_folder(); !cache.empty())
    out.push_back({.use = "cache", .folder = cache});
  return out;
}

int check_folders(const DiskCheckOptions& options, const Session& session) {
  std::error_code failed;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", failed);
  if (failed) return fail(kInfrastructure, "check: /proc/self/exe cannot be read");
  std::vector<FolderCheck> folders = folders_of(options);
  const auto deadline =
      std::chrono::duration_cast<Duration>(std::chrono::duration<double>(options.deadline));
  measure_disks({.command = {self.string(), "check", std::string(kDiskMeasureWord)},
                 .first = deadline,
                 .each = deadline},
                folders);
  const auto findings = judge_disks(folders);
  const Paint paint = session.out_is_terminal ? Paint::coloured : Paint::plain;
  print(session.json() ? json_line(disks_json(folders, findings))
                       : disks_page(folders, findings, paint));
  return any_problem(findings) ? kInfrastructure : kDone;
}

}  // namespace

std::optional<int> refuse_deadline(double seconds) {
  if (seconds > 0 && seconds <= 3600) return std::nullopt;
  return fail(kUsage, "check: --deadline takes up to 3600 seconds");
}

Action declare_check_disk(Arguments& arguments) {
  const auto options = std::make_shared<DiskCheckOptions>();
  arguments.flag("--disk", options->disk, "written and synced, read, small syncs, free space");
  arguments.repeated("--folder", options->folders,
                     "this one in place of the state folder, its checkpoints and the cache");
  arguments.option("--deadline", options->deadline, "seconds for each measure (20)");
  arguments.epilogue(
      "Writes at most 256 MiB, and a tenth of what is free, into a file without a name, which is "
      "gone\n"
      "however this ends. Folders on one disk are measured once. Ends with 3 where a disk fails, "
      "does\n"
      "not answer, has less than 1 GiB left, or is slow to sync below the state folder.");
  return [options](Session& session) {
    const auto refused = refuse_deadline(options->deadline);
    return refused ? *refused : check_folders(*options, session);
  };
}

}  // namespace tutti::cli
