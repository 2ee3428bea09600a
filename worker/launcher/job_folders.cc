#include "worker/launcher/job_folders.h"

#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <system_error>

namespace tutti::worker {

namespace {

// Not in the kernel's list for programs.
constexpr long kZfsMagic = 0x2fc12fc1;

constexpr long kLocal[] = {EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC,      BTRFS_SUPER_MAGIC,
                           F2FS_SUPER_MAGIC, TMPFS_MAGIC,          OVERLAYFS_SUPER_MAGIC,
                           RAMFS_MAGIC,      REISERFS_SUPER_MAGIC, kZfsMagic};

bool is_number(const std::string& name) {
  return !name.empty() &&
         std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace

bool is_local_disk(const std::filesystem::path& folder) {
  struct statfs status {};
  if (::statfs(folder.c_str(), &status) != 0) return false;
  return std::find(std::begin(kLocal), std::end(kLocal), static_cast<long>(status.f_type)) !=
         std::end(kLocal);
}

std::set<std::string> working_folders() {
  std::set<std::string> out;
  std::error_code failed;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", failed)) {
    if (!is_number(entry.path().filename().string())) continue;
    // Read as a link: a look at what it leads to may hang.
    const auto folder = std::filesystem::read_symlink(entry.path() / "cwd", failed);
    if (!failed) out.insert(folder.string());
  }
  return out;
}

void JobFolders::made(const std::string& folder, ProcessId process) {
  left_.erase(folder);
  inside_[folder].insert(process);
  of_process_[process] = folder;
}

void JobFolders::enter(const std::string& folder, ProcessId process) {
  if (inside_.contains(folder) || left_.contains(folder)) made(folder, process);
}

void JobFolders::leave(ProcessId process) {
  const auto of = of_process_.find(process);
  if (of == of_process_.end()) return;
  const auto at = inside_.find(of->second);
  at->second.erase(process);
  if (at->second.empty()) {
    left_.insert(at->first);
    inside_.erase(at);
  }
  of_process_.erase(of);
}

void JobFolders::sweep(const std::set<std::string>& in_use) {
  std::set<std::string> kept;
  std::set<std::string> around;
  for (const std::string& folder : left_) {
    std::error_code failed;
    const std::filesystem::path real = std::filesystem::canonical(folder, failed);
    if (failed) continue;
    if (in_use.contains(real.string())) {
      kept.insert(folder);
    } else if (::rmdir(real.c_str()) == 0) {
      around.insert(real.parent_path().string());
    }
    // One with something in it is the job's, and stays.
  }
  left_ = std::move(kept);
  // Of a task, and empty with it: its array's.
  for (const std::string& folder : around) {
    if (is_number(std::filesystem::path(folder).filename().string()) && !in_use.contains(folder))
      static_cast<void>(::rmdir(folder.c_str()));
  }
}

}  // namespace tutti::worker
