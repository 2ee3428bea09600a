#include "worker/launcher/limits.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <sstream>
#include <thread>

#include "worker/launcher/unified.h"

namespace tutti::worker {

namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t kPeriodUs = 100'000;
Result<> put(const fs::path& file, std::string_view value) { return GroupTree().put(file, value); }

std::string text_of(const fs::path& file) { return GroupTree().text_of(file); }

std::uint64_t whole_of(std::string_view text) {
  std::uint64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

// The number behind `key ` at the beginning of a line.
std::uint64_t value_of(const std::string& text, std::string_view key) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.size() > key.size() && line.starts_with(key) && line[key.size()] == ' ') {
      return whole_of(std::string_view(line).substr(key.size() + 1));
    }
  }
  return 0;
}

bool has_word(const std::string& text, std::string_view word) {
  std::istringstream words(text);
  for (std::string each; words >> each;) {
    if (each == word) return true;
  }
  return false;
}

std::vector<pid_t> members_of(const fs::path& group) {
  std::vector<pid_t> out;
  std::istringstream lines(text_of(group / "cgroup.procs"));
  for (pid_t pid = 0; lines >> pid;) out.push_back(pid);
  return out;
}

// A name for folders, the same for the same text.
std::string short_hash(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return fmt::format("{:016x}", hash);
}

// A mount of /proc/self/mountinfo: "36 35 0:30 ROOT POINT options - TYPE source SUPER".
struct Mount {
  std::string root;
  fs::path point;
  std::string type;
  std::string super;
};

std::vector<Mount> cgroup_mounts() {
  std::vector<Mount> out;
  std::istringstream lines(text_of("/proc/self/mountinfo"));
  for (std::string line; std::getline(lines, line);) {
    const auto dash = line.find(" - cgroup");
    if (dash == std::string::npos) continue;
    std::istringstream before(line);
    std::istringstream after(line.substr(dash + 3));
    std::string skipped;
    Mount mount;
    std::string point;
    before >> skipped >> skipped >> skipped >> mount.root >> point;
    after >> mount.type >> skipped >> mount.super;
    mount.point = point;
    out.push_back(std::move(mount));
  }
  return out;
}

// Where our group of a hierarchy is seen; the mount's own root in a container that shows no more.
fs::path seen_at(const Mount& mount, const std::string& path) {
  std::string below = path;
  if (mount.root != "/" && below.starts_with(mount.root)) below.erase(0, mount.root.size());
  fs::path out = mount.point / fs::path(below).relative_path();
  std::error_code failed;
  return fs::is_directory(out, failed) ? out : mount.point;
}

bool lists(const std::string& commas, std::string_view word) {
  std::istringstream parts(commas);
  for (std::string each; std::getline(parts, each, ',');) {
    if (each == word) return true;
  }
  return false;
}

}  // namespace

std::string_view name_of(Hold hold) {
  switch (hold) {
    case Hold::cgroup2: return "cgroup2";
    case Hold::cgroup1: return "cgroup1";
    case Hold::rlimit: return "rlimit";
  }
  return "rlimit";
}

CgroupRoots own_cgroups() {
  CgroupRoots out;
  const std::vector<Mount> mounts = cgroup_mounts();
  std::istringstream lines(text_of("/proc/self/cgroup"));
  for (std::string line; std::getline(lines, line);) {
    const auto first = line.find(':');
    const auto second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    for (const Mount& mount : mounts) {
      if (controllers.empty() && mount.type == "cgroup2") {
        const fs::path own = seen_at(mount, path);
        if (has_word(text_of(own / "cgroup.controllers"), "memory")) out.unified = own;
      } else if (mount.type == "cgroup" && lists(controllers, "memory") &&
                 lists(mount.super, "memory")) {
        out.memory = seen_at(mount, path);
      } else if (mount.type == "cgroup" && lists(controllers, "cpu") && lists(mount.super, "cpu")) {
        out.cpu = seen_at(mount, path);
      }
    }
  }
  return out;
}

Limiter::Limiter(const CgroupRoots& roots, const std::string& mark) {
  const std::string name = "tutti-" + short_hash(mark);
  if (!roots.unified.empty()) {
    GroupTree kernel;
    if (auto delegated = delegate(kernel, roots.unified, name, runs_our_binary)) {
      memory_ = std::move(delegated->groups);
      unified_cores_ = delegated->cores;
      hold_ = Hold::cgroup2;
      return;
    }
  }
  std::error_code failed;
  if (roots.memory.empty()) return;
  fs::create_directory(roots.memory / name, failed);
  if (failed) return;
  memory_ = roots.memory / name;
  hold_ = Hold::cgroup1;
  if (roots.cpu.empty()) return;
  fs::create_directory(roots.cpu / name, failed);
  if (!failed) cpu_ = roots.cpu / name;
}

std::string Limiter::describe(const Share& share) const {
  std::string what;
  const double gib = static_cast<double>(share.memory_bytes) / (1 << 30);
  if (share.memory_bytes != 0) what = fmt::format("memory {:.4g} GiB", gib);
  const bool cores = unified_cores_ || (hold_ == Hold::cgroup1 && !cpu_.empty());
  if (share.cores != 0 && cores) {
    what += fmt::format("{}{} core{}", what.empty() ? "" : ", ", share.cores,
                        share.cores == 1 ? "" : "s");
  }
  if (what.empty()) return {};
  if (hold_ == Hold::rlimit) what += " of data a process";
  return fmt::format("{}: {}", name_of(hold_), what);
}

std::vector<fs::path> Limiter::folders_of(const std::string& name) const {
  std::vector<fs::path> out = {memory_ / name};
  if (!cpu_.empty()) out.push_back(cpu_ / name);
  return out;
}

Result<Group> Limiter::make(ProcessId process, const Share& share) const {
  Group group;
  if (hold_ == Hold::rlimit || share.empty()) return group;
  group.folders = folders_of("process-" + to_string(process));
  const auto limit = [&]() -> Result<> {
    std::error_code failed;
    for (const fs::path& folder : group.folders) {
      fs::create_directory(folder, failed);
      if (failed) return errno_error("cannot make " + folder.string(), failed.value());
    }
    const fs::path& memory = group.folders.front();
    const bool unified = hold_ == Hold::cgroup2;
    if (share.memory_bytes != 0) {
      const std::string bytes = std::to_string(share.memory_bytes);
      if (Result<> set = put(memory / (unified ? "memory.max" : "memory.limit_in_bytes"), bytes);
          !set) {
        return set;
      }
      // What swaps instead of ending would hold the gang up; not every kernel has these files.
      static_cast<void>(put(memory / (unified ? "memory.swap.max" : "memory.swappiness"), "0"));
      if (unified) static_cast<void>(put(memory / "memory.oom.group", "1"));
    }
    if (share.cores == 0 || (unified && !unified_cores_)) return {};
    const std::string quota = std::to_string(share.cores * kPeriodUs);
    if (unified) return put(memory / "cpu.max", quota + " " + std::to_string(kPeriodUs));
    if (cpu_.empty()) return {};
    return put(group.folders.back() / "cpu.cfs_quota_us", quota);
  };
  Result<> limited = limit();
  for (const fs::path& folder : group.folders) {
    if (!limited) break;
    group.entrances.emplace_back(::open((folder / "cgroup.procs").c_str(), O_WRONLY | O_CLOEXEC));
    if (!group.entrances.back()) limited = errno_error("cannot enter " + folder.string(), errno);
  }
  if (limited) return group;
  remove(group);
  return limited.error();
}

Group Limiter::find(ProcessId process) const {
  Group group;
  if (hold_ == Hold::rlimit) return group;
  std::error_code failed;
  for (fs::path& folder : folders_of("process-" + to_string(process))) {
    if (fs::is_directory(folder, failed)) group.folders.push_back(std::move(folder));
  }
  return group;
}

GroupUsage Limiter::usage(const Group& group) const {
  if (group.empty()) return {};
  const fs::path& memory = group.folders.front();
  const bool unified = hold_ == Hold::cgroup2;
  const std::string events = text_of(memory / (unified ? "memory.events" : "memory.oom_control"));
  return {.memory_peak_bytes =
              whole_of(text_of(memory / (unified ? "memory.peak" : "memory.max_usage_in_bytes"))),
          .out_of_memory = value_of(events, "oom_kill") > 0};
}

void Limiter::remove(const Group& group) const {
  constexpr int kTries = 20;
  for (const fs::path& folder : group.folders) {
    for (int i = 0; i < kTries; ++i) {
      if (::rmdir(folder.c_str()) == 0 || errno != EBUSY) break;
      if (!put(folder / "cgroup.kill", "1")) {
        for (const pid_t pid : members_of(folder)) ::kill(pid, SIGKILL);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
}

void Limiter::close() const {
  for (const fs::path& root : {memory_, cpu_}) {
    if (!root.empty()) ::rmdir(root.c_str());
  }
}

std::size_t Limiter::end_leftovers(Duration within) const {
  if (hold_ == Hold::rlimit) return 0;
  const Instant until = monotonic_now() + within;
  std::size_t ended = 0;
  for (const fs::path& root : {memory_, cpu_}) {
    if (root.empty()) continue;
    std::error_code failed;
    std::vector<fs::path> left;
    for (const auto& entry : fs::directory_iterator(root, failed)) {
      if (entry.path().filename().string().starts_with("process-")) left.push_back(entry.path());
    }
    for (const fs::path& folder : left) {
      ended += members_of(folder).size();
      do {
        remove({.folders = {folder}, .entrances = {}});
      } while (fs::exists(folder, failed) && monotonic_now() < until);
    }
  }
  return ended;
}

std::uint64_t oom_kills() { return value_of(text_of("/proc/vmstat"), "oom_kill"); }

}  // namespace tutti::worker
