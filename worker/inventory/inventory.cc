#include "worker/inventory/inventory.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "protocol/base/cpu_features.h"
#include "protocol/base/file.h"

namespace tutti::worker {

namespace {

constexpr std::uint64_t kFileBytesMax = std::uint64_t{4} << 20;

std::string trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\n");
  if (first == std::string_view::npos) return {};
  return std::string(text.substr(first, text.find_last_not_of(" \t\n") - first + 1));
}

std::string text_of(const std::filesystem::path& path) {
  auto content = read_file(path, kFileBytesMax);
  return content ? *std::move(content) : std::string();
}

std::uint64_t number_of(std::string_view text) {
  std::uint64_t number = 0;
  const auto first = std::min(text.find_first_of("0123456789"), text.size());
  std::from_chars(text.data() + first, text.data() + text.size(), number);
  return number;
}

// The folder of this process's cgroup for a v1 controller, or of the v2 hierarchy ("").
std::filesystem::path cgroup_folder(std::string_view controller) {
  const std::string table = text_of("/proc/self/cgroup");
  std::string_view rest = table;
  while (!rest.empty()) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    const auto first = line.find(':');
    const auto second = line.find(':', first + 1);
    if (first == std::string_view::npos || second == std::string_view::npos) continue;
    const std::string_view names = line.substr(first + 1, second - first - 1);
    const std::string path(line.substr(second + 1));
    if (controller.empty() && names.empty()) return "/sys/fs/cgroup" + path;
    if (!controller.empty() &&
        (names == controller || names.starts_with(controller) || names.ends_with(controller))) {
      return "/sys/fs/cgroup/" + std::string(controller) + path;
    }
  }
  return {};
}

// Visits `file` in the folder and in all its parents below /sys/fs/cgroup: the smallest limit
// counts.
template <class Read>
void for_each_limit(std::filesystem::path folder, const char* file, Read read) {
  while (!folder.empty() && folder != "/sys/fs/cgroup" && folder != "/") {
    const std::string text = text_of(folder / file);
    if (!text.empty()) read(text, folder);
    folder = folder.parent_path();
  }
}

std::uint64_t usable_memory() {
  std::uint64_t bytes = number_of(value_of(text_of("/proc/meminfo"), "MemTotal")) * 1024;
  const auto lower = [&](const std::string& text, const auto&) {
    const std::uint64_t limit = bytes_of_memory_max(text);
    if (limit != 0) bytes = std::min(bytes, limit);
  };
  for_each_limit(cgroup_folder(""), "memory.max", lower);
  for_each_limit(cgroup_folder("memory"), "memory.limit_in_bytes", lower);
  return bytes;
}

}  // namespace

std::uint32_t usable_cores() {
  std::uint32_t cores = std::max(1U, std::thread::hardware_concurrency());
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) {
    cores = static_cast<std::uint32_t>(CPU_COUNT(&set));
  }
  const auto lower = [&](std::uint32_t limit) {
    if (limit != 0) cores = std::min(cores, limit);
  };
  for_each_limit(cgroup_folder(""), "cpu.max",
                 [&](const std::string& text, const auto&) { lower(cores_of_cpu_max(text)); });
  for_each_limit(
      cgroup_folder("cpu"), "cpu.cfs_quota_us",
      [&](const std::string& quota, const std::filesystem::path& folder) {
        if (quota.starts_with("-")) return;
        lower(cores_of_cpu_max(trimmed(quota) + " " + text_of(folder / "cpu.cfs_period_us")));
      });
  return cores;
}

std::uint32_t cores_of_cpu_max(std::string_view cpu_max) {
  const auto space = cpu_max.find(' ');
  if (space == std::string_view::npos || cpu_max.starts_with("max")) return 0;
  const std::uint64_t quota = number_of(cpu_max.substr(0, space));
  const std::uint64_t period = number_of(cpu_max.substr(space));
  if (quota == 0 || period == 0) return 0;
  return static_cast<std::uint32_t>(std::max<std::uint64_t>(1, quota / period));
}

std::uint64_t bytes_of_memory_max(std::string_view memory_max) {
  if (memory_max.starts_with("max")) return 0;
  const std::uint64_t bytes = number_of(memory_max);
  // v1 writes "no limit" as the largest multiple of a page.
  return bytes > (std::uint64_t{1} << 60) ? 0 : bytes;
}

std::string value_of(std::string_view text, std::string_view key) {
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    const auto colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    if (trimmed(line.substr(0, colon)) == key) return trimmed(line.substr(colon + 1));
  }
  return {};
}

std::vector<std::string> cpu_profiles(Bf16Instructions has, const char* path) {
  const bool any = path == nullptr || *path == '\0' || path == std::string_view("avx512bf16");
  std::vector<std::string> out{"portable"};
  if (any && has == Bf16Instructions::tiles) out.emplace_back("amx-bf16");
  if (any && has == Bf16Instructions::pairs) out.emplace_back("avx512bf16-bf16");
  out.emplace_back("portable-bf16");
  out.emplace_back("portable-fp16");
  return out;
}

Inventory take_inventory() {
  Inventory out;
  char host[256] = {};
  if (::gethostname(host, sizeof host - 1) == 0) out.host = host;
  if (out.host.empty()) out.host = "localhost";
  out.boot_id = trimmed(text_of("/proc/sys/kernel/random/boot_id"));
  out.cpu = value_of(text_of("/proc/cpuinfo"), "model name");
  out.cores = usable_cores();
  out.memory_bytes = usable_memory();
  // Without FMA there is no rank that runs.
  if (__builtin_cpu_supports("fma")) {
    const auto has = has_amx_bf16()      ? Bf16Instructions::tiles
                     : has_avx512_bf16() ? Bf16Instructions::pairs
                                         : Bf16Instructions::none;
    out.profiles = cpu_profiles(has, std::getenv("TUTTI_CPU"));
  }
  return out;
}

}  // namespace tutti::worker
