// Gets a part of the cgroup v2 tree ready for groups with limits.
//
// The kernel lets a group hand controllers down only while it holds no processes itself. A worker
// shares its group with whoever started it: under `tutti up` with the supervisor and the
// coordinator, in a unit of systemd with nobody else. All of ours are moved into a leaf beside the
// groups; where somebody else's process is among them, everything stays as it is.
//
//   OWN/tutti-MARK.worker   up, coordinator, worker
//   OWN/tutti-MARK/         process-12, ...: one group each
//
// Errors: those of the kernel's files; aborted: a stranger is in OWN.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "protocol/base/result.h"

namespace tutti::worker {

// The kernel's files, or a test's.
class GroupTree {
 public:
  virtual ~GroupTree() = default;
  virtual Result<> make(const std::filesystem::path& group);
  virtual Result<> put(const std::filesystem::path& file, std::string_view value);
  virtual std::string text_of(const std::filesystem::path& file) const;
};

struct Delegated {
  std::filesystem::path groups;  // made there, with limits of memory
  bool cores = false;            // and of processor time
};

// `own`: the group that we are in. `is_ours`: whether a process may be moved.
Result<Delegated> delegate(GroupTree& tree, const std::filesystem::path& own,
                           const std::string& name, const std::function<bool(pid_t)>& is_ours);

// Whether the process runs the same file as this one.
bool runs_our_binary(pid_t pid);

}  // namespace tutti::worker
