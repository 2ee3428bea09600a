// Which cores the threads of a rank run on, by the machine's topology (hwloc).
//
// A thread that stays on its core keeps its caches and its memory near: pages are those of the NUMA
// node whose thread touches them first, and arenas are touched by the thread that uses them. Which
// cores a rank has is its worker's choice (worker/launcher/core_share.h).
//
//   TUTTI_CORES=2-5,8       what ThreadPool binds its threads to; unset: nothing is bound
//
// Errors: invalid_argument (a list that is none); a bind that the system refuses gives false, and
// all works on, slower.
#pragma once

#include <string_view>
#include <vector>

#include "protocol/base/result.h"

namespace tutti::kernels {

// One entry of each physical core that the calling thread may use, in the order of the topology:
// threads that share a core are one.
std::vector<int> cores_of_machine();

Result<std::vector<int>> parse_cores(std::string_view list);

// From TUTTI_CORES; a list that is none ends the process, as a wish is never passed over silently.
std::vector<int> cores_from_environment();

// The calling thread, from now on.
bool bind_thread(int core);

}  // namespace tutti::kernels
