// What a machine needs to be a node or a coordinator, looked at one by one.
#include <fcntl.h>
#include <fmt/core.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/timex.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>
#include <utility>

#include "ops/cli/doctor/findings.h"
#include "protocol/base/clock.h"
#include "protocol/base/file.h"
#include "worker/launcher/limits.h"

namespace tutti::cli {

namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;
constexpr std::uint64_t kOpenFilesWanted = 4096;  // 1,024 connections of clients, workers, files
constexpr std::uint64_t kMemlockWanted = std::uint64_t{64} << 20;
constexpr double kSyncMsMax = 20;
constexpr int kSyncs = 11;
constexpr std::int64_t kBuiltAfterUnixMs = 1'700'000'000'000;

std::string content_of(const fs::path& file) {
  const Result<std::string> text = read_file(file, 1 << 20);
  return text ? *text : "";
}

Finding good(std::string subject, std::string found) {
  return {Verdict::good, std::move(subject), std::move(found), ""};
}

Finding look_at_kernel() {
  utsname system{};
  ::uname(&system);
  const std::string found = fmt::format("{} {}", system.release, system.machine);
  const long descriptor = ::syscall(SYS_pidfd_open, ::getpid(), 0);
  if (descriptor >= 0) ::close(static_cast<int>(descriptor));
  if (descriptor < 0 && errno == ENOSYS)
    return {Verdict::note, "kernel", found + ", without pidfd_open", "Linux 5.3 or newer is meant"};
  return good("kernel", found);
}

Finding look_at_processor() {
  const std::string info = content_of("/proc/cpuinfo");
  const auto has_flag = [&](const std::string& flag) {
    return info.find(' ' + flag + ' ') != std::string::npos ||
           info.find(' ' + flag + '\n') != std::string::npos;
  };
  std::string found = fmt::format("{} cores", std::thread::hardware_concurrency());
  for (const char* flag : {"avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16"}) {
    if (has_flag(flag)) found += std::string(", ") + flag;
  }
  if (info.find("flags") != std::string::npos && (!has_flag("avx2") || !has_flag("fma"))) {
    return {Verdict::problem, "processor", found,
            "ranks need AVX2 and FMA; this machine can be a coordinator or a client only"};
  }
  return good("processor", found);
}

Finding look_at_open_files() {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const std::string found = fmt::format("{} at most", limit.rlim_max);
  if (limit.rlim_max >= kOpenFilesWanted) return good("open files", found);
  return {Verdict::problem, "open files", found,
          fmt::format("raise the hard limit to {} (LimitNOFILE= of systemd, or limits.conf)",
                      kOpenFilesWanted)};
}

Finding look_at_locked_memory() {
  rlimit limit{};
  ::getrlimit(RLIMIT_MEMLOCK, &limit);
  if (limit.rlim_max == RLIM_INFINITY) return good("locked memory", "no limit");
  const std::string found = print_bytes_short(limit.rlim_max) + " at most";
  if (limit.rlim_max >= kMemlockWanted) return good("locked memory", found);
  return {Verdict::note, "locked memory", found,
          "pinned memory of GPUs wants more (LimitMEMLOCK=infinity); CPUs do without"};
}

Finding look_at_huge_pages() {
  const std::string mode = content_of("/sys/kernel/mm/transparent_hugepage/enabled");
  if (mode.empty()) return {Verdict::note, "huge pages", "the kernel has none", ""};
  const std::size_t begin = mode.find('[');
  const std::string chosen =
      begin == std::string::npos ? "unknown" : mode.substr(begin + 1, mode.find(']') - begin - 1);
  if (chosen != "never") return good("huge pages", chosen);
  return {Verdict::note, "huge pages", chosen,
          "`madvise` makes large states faster to use and to give back: echo madvise > "
          "/sys/kernel/mm/transparent_hugepage/enabled"};
}

Finding look_at_cgroup() {
  const worker::CgroupRoots roots = worker::own_cgroups();
  for (const auto& [version, folder] :
       {std::pair{"version 2", roots.unified}, std::pair{"version 1", roots.memory}}) {
    if (folder.empty() || ::access(folder.c_str(), W_OK) != 0) continue;
    if (::access((folder / "cgroup.procs").c_str(), W_OK) != 0) continue;
    return good("cgroup", fmt::format("{}, may be divided: {}", version, folder.string()));
  }
  return {Verdict::note, "cgroup", "none that may be divided",
          "limits of `run` jobs are rlimits here; systemd's Delegate=yes gives the right"};
}

Finding look_at_space(const std::string& subject, const fs::path& folder, std::uint64_t wanted) {
  struct statvfs status {};
  if (::statvfs(folder.c_str(), &status) != 0)
    return {Verdict::problem, subject, "cannot be looked at: " + folder.string(), "make it"};
  const std::uint64_t free = std::uint64_t{status.f_bavail} * status.f_frsize;
  const std::string found = print_bytes_short(free) + " free in " + folder.string();
  if (free >= wanted) return good(subject, found);
  return {Verdict::problem, subject, found,
          fmt::format("{} or more is meant; make room", print_bytes_short(wanted))};
}

// How long a write takes to be durable: each submit waits for one.
Finding look_at_syncs(const fs::path& folder) {
  const fs::path file = folder / fmt::format(".doctor.{}", ::getpid());
  const FileDescriptor opened(::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!opened) {
    return {Verdict::problem, "state folder", "nothing can be written in " + folder.string(),
            "choose another with --state or $TUTTI_STATE"};
  }
  ::unlink(file.c_str());
  std::array<double, kSyncs> times{};
  const std::string block(4096, 'x');
  for (double& ms : times) {
    const Instant begun = monotonic_now();
    const bool written =
        ::write(opened.get(), block.data(), block.size()) > 0 && ::fdatasync(opened.get()) == 0;
    if (!written)
      return {Verdict::problem, "disk sync", "a write failed", "look at the disk and its quota"};
    ms = to_seconds(monotonic_now() - begun) * 1000;
  }
  std::nth_element(times.begin(), times.begin() + kSyncs / 2, times.end());
  const double median = times[kSyncs / 2];
  const std::string found = fmt::format("{:.2f} ms for 4 KiB", median);
  if (median <= kSyncMsMax) return good("disk sync", found);
  return {Verdict::problem, "disk sync", found,
          "each submit waits for it: put the state folder on a local SSD"};
}

Finding look_at_clock() {
  const std::int64_t now = wall_now().unix_ms;
  timex state{};
  const int status = ::adjtimex(&state);
  if (now < kBuiltAfterUnixMs) {
    return {Verdict::problem, "clock", print_date(now),
            "the clock is wrong: set it, times in events and limits depend on it"};
  }
  if (status == TIME_ERROR || (state.status & STA_UNSYNC) != 0) {
    return {Verdict::note, "clock", print_date(now) + ", not synchronised",
            "run chrony or systemd-timesyncd, so that times of several machines compare"};
  }
  return good("clock", print_date(now) + ", synchronised");
}

// The first line that a command says within a few seconds; empty if it fails.
std::string first_line_of(const std::string& command) {
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(
      ::popen(("timeout 5 " + command + " 2>/dev/null").c_str(), "r"), ::pclose);
  char line[256] = {};
  if (!pipe || std::fgets(line, sizeof line, pipe.get()) == nullptr) return "";
  std::string text(line);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

Finding look_at_python() {
  const std::string version = first_line_of("python3 --version");
  if (version.empty())
    return {Verdict::note, "python", "none", "only `run` jobs that are Python scripts need it"};
  const std::string torch = first_line_of(
      "python3 -c \"from importlib.metadata import version; print(version('torch'))\"");
  return good("python", version + (torch.empty() ? ", without torch" : ", torch " + torch));
}

Finding look_at_rank_program() {
  std::error_code failed;
  const fs::path self = fs::read_symlink("/proc/self/exe", failed);
  const fs::path rank = self.parent_path() / "tutti-rank";
  if (::access(rank.c_str(), X_OK) == 0)
    return good("programs", fmt::format("tutti {}, {}", TUTTI_VERSION, rank.string()));
  return {Verdict::problem, "programs", "no tutti-rank beside " + self.string(),
          "install both, or name it by `rank_binary` in the worker's configuration"};
}

Finding look_at_state(const fs::path& state) {
  struct stat status {};
  if (::stat(state.c_str(), &status) != 0)
    return {Verdict::note, "state folder", state.string() + " is not there",
            "`tutti up` makes it; another is named by $TUTTI_STATE"};
  if ((status.st_mode & 077) != 0) {
    return {Verdict::problem, "state folder", state.string() + " may be read by others",
            "it holds tokens and keys: chmod 700 " + state.string()};
  }
  return good("state folder", state.string());
}

}  // namespace

std::vector<Finding> examine_machine(const fs::path& state) {
  std::vector<Finding> out{look_at_kernel(),
                           look_at_processor(),
                           look_at_open_files(),
                           look_at_locked_memory(),
                           look_at_huge_pages(),
                           look_at_cgroup(),
                           look_at_space("shared memory", "/dev/shm", kGiB / 4),
                           look_at_clock(),
                           look_at_python(),
                           look_at_rank_program(),
                           look_at_state(state)};
  // Where the folder would be made.
  fs::path folder = fs::absolute(state);
  std::error_code failed;
  while (!fs::is_directory(folder, failed) && folder.has_relative_path())
    folder = folder.parent_path();
  out.push_back(look_at_space("disk space", folder, kGiB));
  out.push_back(look_at_syncs(folder));
  for (Finding& finding : judge_gpus(worker::take_gpu_inventory()))
    out.push_back(std::move(finding));
  return out;
}

}  // namespace tutti::cli
