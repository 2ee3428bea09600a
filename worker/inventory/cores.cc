#include "worker/inventory/cores.h"

#include <fcntl.h>
#include <hwloc.h>
#include <sched.h>
#include <sys/file.h>

#include <memory>

#include "worker/inventory/inventory.h"

namespace tutti::worker {

namespace {

constexpr const char* kClaim = "tutti-cores";

struct Free {
  void operator()(hwloc_topology_t topology) const { hwloc_topology_destroy(topology); }
  void operator()(hwloc_bitmap_t set) const { hwloc_bitmap_free(set); }
};
using Topology = std::unique_ptr<std::remove_pointer_t<hwloc_topology_t>, Free>;
using Set = std::unique_ptr<std::remove_pointer_t<hwloc_bitmap_t>, Free>;

std::vector<Core> read_cores(hwloc_topology_t topology, hwloc_const_bitmap_t allowed) {
  std::vector<Core> cores;
  const Set usable(hwloc_bitmap_alloc());
  for (hwloc_obj_t core = nullptr;
       (core = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_CORE, core)) != nullptr;) {
    hwloc_bitmap_and(usable.get(), core->cpuset, allowed);
    int cpu = hwloc_bitmap_first(usable.get());
    if (cpu < 0) continue;
    Core& found = cores.emplace_back();
    found.cpu = cpu;
    found.node = hwloc_bitmap_first(core->nodeset);
    while ((cpu = hwloc_bitmap_next(usable.get(), cpu)) >= 0) found.siblings.push_back(cpu);
  }
  return cores;
}

}  // namespace

std::vector<Core> physical_cores() {
  hwloc_topology_t made = nullptr;
  if (hwloc_topology_init(&made) != 0) return {};
  const Topology topology(made);
  const Set allowed(hwloc_bitmap_alloc());
  if (hwloc_topology_load(made) != 0 ||
      hwloc_get_cpubind(made, allowed.get(), HWLOC_CPUBIND_PROCESS) != 0) {
    return {};
  }
  return read_cores(made, allowed.get());
}

std::vector<Core> synthetic_cores(const std::string& machine) {
  hwloc_topology_t made = nullptr;
  if (hwloc_topology_init(&made) != 0) return {};
  const Topology topology(made);
  if (hwloc_topology_set_synthetic(made, machine.c_str()) != 0 || hwloc_topology_load(made) != 0) {
    return {};
  }
  return read_cores(made, hwloc_topology_get_topology_cpuset(made));
}

std::vector<Core> cores_beside_agent(std::vector<Core> cores) {
  if (cores.size() > 2) cores.erase(cores.begin());
  return cores;
}

Offer offer_of(const OfferWish& wished, std::uint32_t usable, const std::vector<Core>& given) {
  Offer out;
  out.cores = given.empty() ? usable : static_cast<std::uint32_t>(given.size());
  out.slots = wished.slots != 0 ? wished.slots : out.cores;
  // Threads of a slot, if given, are announced as the cores that they need.
  if (wished.threads != 0) out.cores = wished.threads * out.slots;
  return out;
}

// Another user's file is opened for reading, which is all that a lock needs.
FileDescriptor claim_cores(const std::filesystem::path& claims) {
  const std::filesystem::path path = claims / kClaim;
  constexpr int kFlags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW;
  FileDescriptor file(::open(path.c_str(), kFlags));
  if (!file) file = FileDescriptor(::open(path.c_str(), kFlags | O_CREAT | O_EXCL, 0644));
  if (!file) file = FileDescriptor(::open(path.c_str(), kFlags));  // made by another meanwhile
  if (file && ::flock(file.get(), LOCK_EX | LOCK_NB) != 0) return {};
  return file;
}

RankCores rank_cores(const std::filesystem::path& claims) {
  cpu_set_t affinity;
  CPU_ZERO(&affinity);
  if (::sched_getaffinity(0, sizeof affinity, &affinity) != 0) return {};
  // What a quota took away, no core stands for.
  if (usable_cores() < static_cast<std::uint32_t>(CPU_COUNT(&affinity))) return {};
  RankCores out{.cores = {}, .claim = claim_cores(claims)};
  if (out.claim) out.cores = cores_beside_agent(physical_cores());
  return out;
}

}  // namespace tutti::worker
