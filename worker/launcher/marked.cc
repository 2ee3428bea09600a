// Finding processes by their environment: descendants that left their group, and what an earlier
// worker left behind.
#include <dirent.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "worker/launcher/launcher.h"

namespace tutti::worker {

namespace {

constexpr std::uint64_t kCommandBytesMax = std::uint64_t{1} << 20;
constexpr std::uint64_t kEnvironmentBytesMax = std::uint64_t{4} << 20;

bool holds(std::string_view environment, std::string_view mark) {
  while (!environment.empty()) {
    const std::string_view entry = environment.substr(0, environment.find('\0'));
    if (entry == mark) return true;
    environment.remove_prefix(std::min(environment.size(), entry.size() + 1));
  }
  return false;
}

// How long a process that executes a program may seem to have no command and no environment.
constexpr Duration kExecutesWithin = std::chrono::milliseconds(100);
constexpr Duration kLooksAgainAfter = std::chrono::milliseconds(5);

}  // namespace

std::string command_of(pid_t pid) {
  for (const Instant until = monotonic_now() + kExecutesWithin;;) {
    auto command = read_file("/proc/" + std::to_string(pid) + "/cmdline", kCommandBytesMax);
    if (!command) return {};
    if (!command->empty() || monotonic_now() >= until) return *std::move(command);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

// Dead processes that nobody has reaped have an empty environment, and so are not found.
std::vector<pid_t> find_marked(const std::vector<std::string>& marks) {
  std::vector<pid_t> out;
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(::opendir("/proc"), &::closedir);
  if (!folder) return out;
  const uid_t user = ::geteuid();
  while (const dirent* entry = ::readdir(folder.get())) {
    pid_t pid = 0;
    const char* end = entry->d_name + std::strlen(entry->d_name);
    if (std::from_chars(entry->d_name, end, pid).ptr != end || pid == ::getpid()) continue;
    const std::string path = std::string("/proc/") + entry->d_name;
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0 || status.st_uid != user) continue;
    const auto environment = read_file(path + "/environ", kEnvironmentBytesMax);
    if (!environment) continue;
    const bool marked = std::all_of(marks.begin(), marks.end(), [&](const std::string& mark) {
      return holds(*environment, mark);
    });
    if (marked) out.push_back(pid);
  }
  return out;
}

std::size_t end_marked(const std::vector<std::string>& marks, Duration deadline) {
  const Instant until = monotonic_now() + deadline;
  std::size_t killed = 0;
  for (bool none_before = false;;) {
    const std::vector<pid_t> found = find_marked(marks);
    for (const pid_t pid : found) {
      if (::kill(pid, SIGKILL) == 0) ++killed;
    }
    // One that is executing a program shows no environment: a second look finds it.
    if ((found.empty() && none_before) || monotonic_now() >= until) return killed;
    none_before = found.empty();
    std::this_thread::sleep_for(kLooksAgainAfter);
  }
}

}  // namespace tutti::worker
