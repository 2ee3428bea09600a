#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

Touched hang_rank(Struck& at) {
  const JobId job = at.worker.hang_rank(at.choice, at.choice % 2 == 0 ? at.away : Duration(1h));
  if (!job) return std::nullopt;
  return std::set<JobId>{job};
}

}  // namespace tutti::simulation
