#include "kernels/tensor/cores.h"

#include <hwloc.h>
#include <linux/mempolicy.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <memory>
#include <string>

#include "protocol/base/log.h"

namespace tutti::kernels {

namespace {

constexpr int kCoreMax = 4096;

struct TopologyEnd {
  void operator()(hwloc_topology_t topology) const { hwloc_topology_destroy(topology); }
};
using Topology = std::unique_ptr<std::remove_pointer_t<hwloc_topology_t>, TopologyEnd>;

struct BitmapEnd {
  void operator()(hwloc_bitmap_t bitmap) const { hwloc_bitmap_free(bitmap); }
};
using Bitmap = std::unique_ptr<std::remove_pointer_t<hwloc_bitmap_t>, BitmapEnd>;

// Null where the machine cannot be read. Of a container, what it may use.
Topology read_topology() {
  hwloc_topology_t topology = nullptr;
  if (hwloc_topology_init(&topology) != 0) return nullptr;
  Topology owned(topology);
  if (hwloc_topology_load(topology) != 0) return nullptr;
  return owned;
}

bool parse_number(std::string_view text, int& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size() && number >= 0 &&
         number < kCoreMax;
}

}  // namespace

std::vector<int> cores_of_machine() {
  const Topology topology = read_topology();
  std::vector<int> cores;
  if (topology == nullptr) return cores;
  const Bitmap allowed(hwloc_bitmap_alloc());
  if (hwloc_get_cpubind(topology.get(), allowed.get(), HWLOC_CPUBIND_THREAD) != 0) {
    hwloc_bitmap_fill(allowed.get());
  }
  const int count = hwloc_get_nbobjs_by_type(topology.get(), HWLOC_OBJ_CORE);
  for (int i = 0; i < count; ++i) {
    const hwloc_obj_t core =
        hwloc_get_obj_by_type(topology.get(), HWLOC_OBJ_CORE, static_cast<unsigned>(i));
    const Bitmap usable(hwloc_bitmap_alloc());
    hwloc_bitmap_and(usable.get(), core->cpuset, allowed.get());
    if (const int first = hwloc_bitmap_first(usable.get()); first >= 0) cores.push_back(first);
  }
  return cores;
}

Result<std::vector<int>> parse_cores(std::string_view list) {
  const Error wrong{ErrorCode::invalid_argument,
                    "\"" + std::string(list) + "\" is no list of cores, such as 2-5,8"};
  std::vector<int> cores;
  while (true) {
    const std::size_t comma = list.find(',');
    const std::string_view part = list.substr(0, comma);
    const std::size_t dash = part.find('-');
    int first = 0;
    int last = 0;
    if (!parse_number(part.substr(0, dash), first)) return wrong;
    last = first;
    if (dash != std::string_view::npos && !parse_number(part.substr(dash + 1), last)) return wrong;
    if (last < first) return wrong;
    for (int core = first; core <= last; ++core) cores.push_back(core);
    if (comma == std::string_view::npos) return cores;
    list.remove_prefix(comma + 1);
  }
}

std::vector<int> cores_from_environment() {
  const char* const list = std::getenv("TUTTI_CORES");
  if (list == nullptr || *list == '\0') return {};
  auto cores = parse_cores(list);
  if (cores) return *std::move(cores);
  TUTTI_LOG_ERROR("kernels", "TUTTI_CORES: {}", cores.error().message);
  std::abort();
}

// Without the topology: reading it takes longer than a thread's start. The policy of memory is
// asked for as well, against one that the process inherited (numactl --interleave); where a
// container forbids that, the system's own policy is the same as a rule.
bool bind_thread(int core) {
  if (core < 0 || core >= kCoreMax) return false;
  cpu_set_t* const set = CPU_ALLOC(kCoreMax);
  const std::size_t bytes = CPU_ALLOC_SIZE(kCoreMax);
  CPU_ZERO_S(bytes, set);
  CPU_SET_S(static_cast<std::size_t>(core), bytes, set);
  const bool bound = sched_setaffinity(0, bytes, set) == 0;
  CPU_FREE(set);
  if (bound) ::syscall(SYS_set_mempolicy, MPOL_LOCAL, nullptr, 0);
  return bound;
}

}  // namespace tutti::kernels
