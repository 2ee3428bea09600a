#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

Touched kill_rank(Struck& at) {
  const JobId job = at.worker.kill_rank(at.choice);
  if (!job) return std::nullopt;
  return std::set<JobId>{job};
}

}  // namespace tutti::simulation
