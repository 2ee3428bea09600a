// One simulated cluster with its clients, its faults, and the checkers: runs to the end from one
// seed.
//
// First the safety phase, with faults; then they stop and liveness must follow: every job ends
// within the bound, and after a moment of rest the auditor looks at what is left.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "tests/simulation/checkers/checkers.h"
#include "tests/simulation/cluster/sim_coordinator.h"
#include "tests/simulation/cluster/sim_worker.h"
#include "tests/simulation/faults/faults.h"
#include "tests/simulation/scenario/clients.h"
#include "tests/simulation/scenario/coverage.h"
#include "tests/simulation/scenario/options.h"
#include "tests/simulation/world/world.h"

namespace tutti::simulation {

class Scenario {
 public:
  explicit Scenario(ScenarioOptions options);

  // The broken invariant, or nothing.
  std::optional<std::string> run();

  std::uint64_t events() const { return world_.events(); }
  std::uint64_t trace_hash() const { return world_.trace_hash(); }
  std::uint64_t steps_committed() const { return ranks_.steps_committed; }
  const Coverage& coverage() const { return coverage_; }
  // By name, and the first one.
  const coordinator::JobRecord* job(const std::string& name) const;
  const coordinator::JobRecord* first_job() const;
  std::uint64_t recoveries() const;
  // The last one at which a job had not ended.
  std::uint64_t last_working_event() const { return last_working_event_; }

 private:
  void make_coordinator();
  void make_workers();
  void plan();
  void cause_faults();
  void one_fault(JobId of);
  void await_moment();
  void seize_moment();
  SimWorker& worker_with(JobId job);
  void end_faults();
  void hit(const Strike& strike);
  // Of jobs that have not ended.
  using States = std::map<JobId, std::vector<std::string_view>>;
  States states() const;
  void note_coverage(std::string_view fault, const std::set<JobId>& touched, const States& before);
  void note_crash();
  Struck struck(SimWorker& worker);
  void notice_coordinator();
  bool all_ended() const;
  bool all_reachable() const;
  SimWorker* worker_of(const std::string& peer);

  ScenarioOptions options_;
  World world_;
  Network network_;
  RankWorld ranks_;
  std::unique_ptr<SimCoordinator> coordinator_;
  std::unique_ptr<Clients> clients_;
  std::vector<std::unique_ptr<SimWorker>> workers_;
  std::unique_ptr<Checkers> checkers_;
  std::uint64_t life_seen_ = 0;
  std::uint64_t last_working_event_ = 0;
  std::string awaited_;  // the state that the next fault waits for; empty: none does
  std::uint64_t moment_ = 0;
  bool crash_struck_ = false;  // and the coordinator has not crashed yet
  Coverage coverage_;
};

}  // namespace tutti::simulation
