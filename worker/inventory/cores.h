// The cores that this worker gives to its ranks, one entry a physical core, in the order of the
// topology (hwloc): neighbours in the list are neighbours in the machine.
//
// Of more than two, the first is left to the agent: the worker, the coordinator, sockets. None
// where binding would do harm: under a CPU quota (time is what is given there, not cores), and
// while another worker on this machine gives its cores away.
//
// A worker offers what it can give: as many cores as this list has, and a slot for each unless its
// configuration says otherwise. A rank then gets its share of them as threads, one a core, and each
// thread finds a core of its own, hyperthreads or not.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "protocol/base/file.h"

namespace tutti::worker {

struct Core {
  int cpu = 0;                     // number of its first logical CPU that may be used
  int node = 0;                    // NUMA node of its memory
  std::vector<int> siblings = {};  // numbers of its further ones

  bool operator==(const Core&) const = default;
};

struct RankCores {
  std::vector<Core> cores;
  FileDescriptor claim;  // on the machine's cores, for as long as it is open
};

// `claims`: a folder that all workers of this machine see, and no other machine.
RankCores rank_cores(const std::filesystem::path& claims = "/dev/shm");

struct Offer {
  std::uint32_t slots = 0;
  std::uint32_t cores = 0;

  bool operator==(const Offer&) const = default;
};

// To the coordinator. `wished`: slots, and cores of a slot, of the configuration; 0: none is said.
// `usable`: logical CPUs of the machine, offered where no core is given.
struct OfferWish {
  std::uint32_t slots = 0;
  std::uint32_t threads = 0;
};
Offer offer_of(const OfferWish& wished, std::uint32_t usable, const std::vector<Core>& given);

// The parts of it, for tests.

// Those of the affinity mask; empty: the machine cannot be read.
std::vector<Core> physical_cores();
// Those of a machine that hwloc makes up, such as "numa:2 core:4 pu:2"; empty: it is none.
std::vector<Core> synthetic_cores(const std::string& machine);
// Without the agent's.
std::vector<Core> cores_beside_agent(std::vector<Core> cores);
// Invalid: another worker has it, or the folder cannot be used.
FileDescriptor claim_cores(const std::filesystem::path& claims);

}  // namespace tutti::worker
