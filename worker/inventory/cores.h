// The cores that this worker gives to its ranks, one entry a physical core, in the order of the
// topology (hwloc): neighbours in the list are neighbours in the machine.
//
// Of more than two, the first is left to the agent: the worker, the coordinator, sockets. None
// where binding would do harm: under a CPU quota (time is what is given there, not cores), and
// while another worker on this machine gives its cores away.
#pragma once

#include <filesystem>
#include <vector>

#include "protocol/base/file.h"

namespace tutti::worker {

struct RankCores {
  std::vector<int> cores;  // numbers of logical CPUs
  FileDescriptor claim;    // on the machine's cores, for as long as it is open
};

// `claims`: a folder that all workers of this machine see, and no other machine.
RankCores rank_cores(const std::filesystem::path& claims = "/dev/shm");

// The parts of it, for tests.

// One logical CPU of each core of the affinity mask; empty: the machine cannot be read.
std::vector<int> physical_cores();
// Without the agent's.
std::vector<int> cores_beside_agent(std::vector<int> cores);
// Invalid: another worker has it, or the folder cannot be used.
FileDescriptor claim_cores(const std::filesystem::path& claims);

}  // namespace tutti::worker
