#include "worker/launcher/unified.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <sstream>
#include <vector>

#include "protocol/base/file.h"

namespace tutti::worker {

namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t kFileBytesMax = std::uint64_t{4} << 20;

// One by one: a kernel without one of them, or that was not delegated, refuses them together.
Result<> enable(GroupTree& tree, const fs::path& group, std::string_view controller) {
  return tree.put(group / "cgroup.subtree_control", "+" + std::string(controller));
}

Result<> move_out(GroupTree& tree, const fs::path& own, const fs::path& leaf,
                  const std::function<bool(pid_t)>& is_ours) {
  std::vector<pid_t> members;
  std::istringstream lines(tree.text_of(own / "cgroup.procs"));
  for (pid_t pid = 0; lines >> pid;) members.push_back(pid);
  for (const pid_t pid : members) {
    if (is_ours(pid)) continue;
    return Error{ErrorCode::aborted,
                 "process " + std::to_string(pid) + " is in " + own.string() + ", too"};
  }
  if (Result<> made = tree.make(leaf); !made) return made;
  for (const pid_t pid : members) {
    // One that has ended meanwhile is not missed; what stays is met by whoever enables.
    const Result<> moved = tree.put(leaf / "cgroup.procs", std::to_string(pid));
    if (!moved && pid == ::getpid()) return moved;
  }
  return {};
}

}  // namespace

Result<> GroupTree::make(const fs::path& group) {
  std::error_code failed;
  fs::create_directory(group, failed);
  if (failed) return errno_error("cannot make " + group.string(), failed.value());
  return {};
}

// Kernel files take a value in one write, or not at all.
Result<> GroupTree::put(const fs::path& file, std::string_view value) {
  const FileDescriptor out(::open(file.c_str(), O_WRONLY | O_CLOEXEC));
  if (!out) return errno_error("cannot open " + file.string(), errno);
  if (::write(out.get(), value.data(), value.size()) != static_cast<ssize_t>(value.size())) {
    return errno_error("cannot write " + file.string(), errno);
  }
  return {};
}

std::string GroupTree::text_of(const fs::path& file) const {
  auto text = read_file(file, kFileBytesMax);
  return text ? *std::move(text) : std::string();
}

Result<Delegated> delegate(GroupTree& tree, const fs::path& own, const std::string& name,
                           const std::function<bool(pid_t)>& is_ours) {
  const std::string leaf = name + ".worker";
  // Whoever was moved before has children there.
  const fs::path root = own.filename() == leaf ? own.parent_path() : own;
  const fs::path groups = root / name;
  if (!enable(tree, root, "memory")) {
    if (Result<> moved = move_out(tree, root, root / leaf, is_ours); !moved) return moved.error();
    if (Result<> given = enable(tree, root, "memory"); !given) return given.error();
  }
  if (Result<> made = tree.make(groups); !made) return made.error();
  if (Result<> given = enable(tree, groups, "memory"); !given) return given.error();
  // Nobody is in the way any more: what is refused now is not there.
  const bool cores = enable(tree, root, "cpu") && enable(tree, groups, "cpu");
  return Delegated{.groups = groups, .cores = cores};
}

bool runs_our_binary(pid_t pid) {
  std::error_code failed;
  const fs::path theirs = fs::read_symlink("/proc/" + std::to_string(pid) + "/exe", failed);
  if (failed) return false;
  const fs::path ours = fs::read_symlink("/proc/self/exe", failed);
  return !failed && theirs == ours;
}

}  // namespace tutti::worker
