// Counts what happens to jobs, out of the facts as they become durable: totals and histograms that
// the state itself does not keep.
//
// Threads: one. They begin at zero with each coordinator, as Prometheus expects of counters.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "coordinator/cluster/cluster_facts.h"
#include "coordinator/cluster/cluster_state.h"
#include "coordinator/metrics/histogram.h"

namespace tutti::coordinator {

class ClusterMeter {
 public:
  // After the facts are in `state`.
  void on(const Fact& fact, const ClusterState& state);

  struct PhaseTimes {
    std::string_view phase;
    Histogram seconds{0.01, 0.03, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 120};
  };

  std::uint64_t submitted = 0;
  std::uint64_t generations = 0;
  std::uint64_t checkpoints = 0;
  std::uint64_t checkpoints_dropped = 0;
  std::uint64_t steps_lost = 0;
  std::map<std::string, std::uint64_t> interruptions;                    // by class of failure
  std::map<std::pair<std::string, std::string>, std::uint64_t> settled;  // by kind and state
  Histogram queue_seconds{0.01, 0.03, 0.1, 0.3, 1, 10, 60, 600, 3600, 86400};
  // The parts of queue_seconds: until its slots are reserved, until all of its ranks are there and
  // admitted to a group, until they run.
  std::array<PhaseTimes, 3> start{{{.phase = "reserve"}, {.phase = "admit"}, {.phase = "ready"}}};
  Histogram run_seconds{0.1, 1, 10, 60, 600, 3600, 21600, 86400, 604800};
  // Since the loss was seen.
  std::array<PhaseTimes, 5> recovery{{{.phase = "decided"},
                                      {.phase = "aborted"},
                                      {.phase = "regrouped"},
                                      {.phase = "copied"},
                                      {.phase = "first_step"}}};

 private:
  struct Start {
    std::int64_t placed_ms = 0;
    std::int64_t ordered_ms = 0;
  };

  void on_running(const GroupRunning& fact, const ClusterState& state);
  void on_settled(const JobSettled& fact, const ClusterState& state);
  void observe_recovery(const JobRecord& job, Generation generation);

  std::map<JobId, Start> starting_;  // in their first generation
};

}  // namespace tutti::coordinator
