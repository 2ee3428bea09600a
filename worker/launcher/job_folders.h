// Folders that this worker made for jobs: the empty ones go again, once nobody is in them.
//
// Without this a folder a program would stay, for ever, on a disk that the coordinator, which
// removes empty folders of the jobs that it forgets, does not see. Only on disks of this machine:
// on one that others see, too, a rank of theirs may be in it.
//
// Threads: one. Limits: what has ended is looked at in each sweep, and kept only while somebody is
// in it.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "protocol/base/ids.h"

namespace tutti::worker {

// Whether the file system is this machine's own, and nobody else's; false where that is not known.
bool is_local_disk(const std::filesystem::path& folder);

// Where processes of this machine are, as far as they can be looked at.
std::set<std::string> working_folders();

class JobFolders {
 public:
  // The process goes to a folder that this worker has just made.
  void made(const std::string& folder, ProcessId process);
  // It goes to a folder; one of others is no matter.
  void enter(const std::string& folder, ProcessId process);
  // The process has ended.
  void leave(ProcessId process);

  // Removes what is empty and has nobody in it, of those that `in_use` does not name. Not while
  // somebody makes folders.
  void sweep(const std::set<std::string>& in_use);
  // Whether there is something to sweep.
  bool has_left() const { return !left_.empty(); }

  std::size_t known() const { return inside_.size() + left_.size(); }

 private:
  std::map<std::string, std::set<ProcessId>> inside_;  // by folder
  std::map<ProcessId, std::string> of_process_;
  std::set<std::string> left_;  // nobody of ours is in it any more
};

}  // namespace tutti::worker
