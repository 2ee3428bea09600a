// Measures this machine's GPUs by processes of the rank binary, since a GPU that is not well holds
// up for good whoever uses it: a measure that does not end in its time costs its process, and
// another one goes on behind it.
//
// Threads: the main one (it forks). What a hanging driver keeps in the kernel is left behind.
#pragma once

#include <string>
#include <vector>

#include "ops/cli/gpus/gpu_check.h"
#include "protocol/base/clock.h"

namespace tutti::cli {

struct Measuring {
  std::vector<std::string> command;  // `tutti-rank-cuda devices --measure ...`
  Duration each = std::chrono::seconds(20);
  // Until the first word of a process: a driver that lets go of its GPUs takes seconds for each.
  Duration first = std::chrono::seconds(60);
};

// All but the driver's readings. A GPU that failed, or did not answer, is not measured further;
// `problem` says why there is none, or why not all was measured.
GpuCheck measure_gpus(const Measuring& measuring);

}  // namespace tutti::cli
