// How a process is held to its memory and cores, and what the kernel says of it afterwards.
//
// Where this worker may make groups of its own it uses them (cgroup v2 that was delegated to it,
// unified.h, of memory alone if that is all; or v1); else it sets resource limits, which hold each
// process by itself and know no share of the cores. Only processes that have limits get a group:
//
//   v2   OWN/tutti-MARK/process-12          memory.max, memory.swap.max, cpu.max, memory.oom.group
//   v1   memory:OWN/tutti-MARK/process-12   memory.limit_in_bytes   cpu:... cpu.cfs_quota_us
//
// A group outlives its worker only until the next one on the same state folder, which ends what is
// left in it. Threads: the worker's. Errors: a limit that cannot be set is an error, never silently
// left out.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/base/clock.h"
#include "protocol/base/file.h"
#include "protocol/base/ids.h"
#include "protocol/base/result.h"

namespace tutti::worker {

// Of one process and all that it starts; 0: not limited.
struct Share {
  std::uint64_t memory_bytes = 0;
  std::uint32_t cores = 0;

  bool empty() const { return memory_bytes == 0 && cores == 0; }
};

enum class Hold { cgroup2, cgroup1, rlimit };

std::string_view name_of(Hold hold);

// Where groups may be made. Tests give folders of their own.
struct CgroupRoots {
  std::filesystem::path unified;  // v2, empty: no memory controller there
  std::filesystem::path memory;   // v1
  std::filesystem::path cpu;      // v1; empty: cores are not limited
};

// This process's own groups, from /proc/self.
CgroupRoots own_cgroups();

// The groups of one process.
struct Group {
  std::vector<std::filesystem::path> folders;
  std::vector<FileDescriptor> entrances;  // cgroup.procs of each: who writes 0 there enters

  bool empty() const { return folders.empty(); }
};

struct GroupUsage {
  std::uint64_t memory_peak_bytes = 0;  // 0: not known
  bool out_of_memory = false;           // the kernel ended something in it for want of memory
};

class Limiter {
 public:
  // `mark` names the worker's state folder: groups of another worker are not touched. Falls back to
  // rlimit where no group can be made.
  Limiter(const CgroupRoots& roots, const std::string& mark);

  Hold hold() const { return hold_; }

  // For people: "cgroup1: memory 2 GiB, 1 cores"; empty: nothing is limited.
  std::string describe(const Share& share) const;

  // The group in which a process with this share starts; none for rlimit or an empty share.
  Result<Group> make(ProcessId process, const Share& share) const;
  // That of a process that an earlier run of this program started.
  Group find(ProcessId process) const;

  GroupUsage usage(const Group& group) const;

  // Ends what is still in it and removes it. Best effort: a later start does it again.
  void remove(const Group& group) const;

  // Removes what it made for itself, if nothing is in it any more: a worker that ends.
  void close() const;

  // What an earlier worker left. Returns how many processes were still there.
  std::size_t end_leftovers(Duration within) const;

 private:
  std::vector<std::filesystem::path> folders_of(const std::string& name) const;

  Hold hold_ = Hold::rlimit;
  std::filesystem::path memory_;  // tutti-MARK; v2: the only one
  std::filesystem::path cpu_;
  bool unified_cores_ = false;  // v2: the cpu controller is ours, too
};

// How often the kernel has ended a process for want of memory, on the whole machine.
std::uint64_t oom_kills();

}  // namespace tutti::worker
