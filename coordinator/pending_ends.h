// Ends of jobs that were decided and that the full disk has not taken.
//
// A crash takes them back, so nobody is told of one before it is durable (DESIGN actors: reads show
// synced state): a reader is shown a job that is stopping, without exit code, cause or time.
//
// Threads: one. Limits: what a full disk lets pending (cluster_host.cc).
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "coordinator/cluster/cluster_facts.h"
#include "coordinator/cluster/cluster_state.h"
#include "coordinator/cluster/cluster_views.h"
#include "coordinator/cluster/durable.h"
#include "protocol/base/ids.h"

namespace tutti::coordinator {

class PendingEnds {
 public:
  // Of a decision that is applied to `state`.
  void note(const Fact& fact, const ClusterState& state);
  void clear();

  // By job or task: how it ended.
  const std::map<JobId, JobState>& jobs() const { return ends_; }

  // Turn copies that `state` gave into what is shown; most stay as they are.
  void show(JobSummary& job) const;
  void show(JobDetail& job) const;
  void show(std::vector<TaskView>& tasks) const;
  void show(Explanation& explained) const;
  void show(Durable::Counts& counts, const ClusterState& state) const;

 private:
  bool takes_back(JobId job, JobState ended) const;

  std::map<JobId, JobState> ends_;
  // Whose tasks that wait were cancelled all at once: how many tasks they have.
  std::map<JobId, std::uint32_t> arrays_;
};

}  // namespace tutti::coordinator
