// Which cores the threads of a rank run on, by the machine's topology (hwloc).
//
// A thread that stays on its core keeps its caches and its memory near: pages are those of the NUMA
// node whose thread touches them first, and arenas are touched by the thread that uses them. Each
// rank of a machine has cores of its own, side by side in the topology, so that a rank lies in one
// NUMA node where nodes are large enough; with more than two cores the first one is left to the
// agent (the worker, the coordinator, sockets).
//
//   TUTTI_CORES=2-5,8       what ThreadPool binds its threads to; unset: nothing is bound
//
// Errors: invalid_argument (a list that is none); a bind that the system refuses gives false, and
// all works on, slower.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "protocol/base/result.h"

namespace tutti::kernels {

// One entry of each physical core that this process may use, in the order of the topology.
std::vector<int> cores_of_machine();

// Of these cores, those of rank `slot` of `slots`; empty where slots outnumber cores.
std::vector<int> share_cores(std::span<const int> cores, int slot, int slots);

Result<std::vector<int>> parse_cores(std::string_view list);

// From TUTTI_CORES; a list that is none ends the process, as a wish is never passed over silently.
std::vector<int> cores_from_environment();

// The calling thread, from now on.
bool bind_thread(int core);

}  // namespace tutti::kernels
