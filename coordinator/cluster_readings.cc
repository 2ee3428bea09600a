// What people read of the cluster's jobs: the state, and no end before it is durable.
#include <utility>

#include "coordinator/cluster_host.h"

namespace tutti::coordinator {

JobPage ClusterHost::jobs(JobFilter filter) {
  const ClusterState& state = settled_state();
  filter.stopping = &pending_ends_.jobs();
  JobPage page = state.jobs(filter);
  for (JobSummary& job : page.jobs) pending_ends_.show(job);
  return page;
}

std::optional<JobDetail> ClusterHost::job(JobId job) {
  std::optional<JobDetail> found = settled_state().job(job);
  if (found) pending_ends_.show(*found);
  return found;
}

std::vector<TaskView> ClusterHost::tasks(JobId array) {
  std::vector<TaskView> found = settled_state().tasks(array);
  pending_ends_.show(found);
  return found;
}

std::optional<Explanation> ClusterHost::explain(JobId job) {
  std::optional<Explanation> found = settled_state().explain(job);
  if (found) pending_ends_.show(*found);
  return found;
}

Durable::Counts ClusterHost::job_counts() {
  Durable::Counts counts = settled_state().job_counts();
  pending_ends_.show(counts, *state_);
  return counts;
}

}  // namespace tutti::coordinator
