// One simulated cluster with its clients, its faults, and the checkers: runs to the end from one
// seed.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/simulation/checkers.h"
#include "tests/simulation/ranks.h"
#include "tests/simulation/sim_coordinator.h"
#include "tests/simulation/sim_worker.h"
#include "tests/simulation/world.h"

namespace tutti::simulation {

enum class Victim { none, coordinator_before_sync, coordinator_after_sync, worker, rank, link };

struct Strike {
  Victim victim = Victim::none;
  std::uint64_t event = 0;
  Duration away = 300ms;  // of who comes back; how long the link is cut
};

// A job of the scenario; its key is its name.
struct SimJob {
  std::string name;
  std::string kind = "train";
  std::uint32_t ranks = 2;
  Duration at = 0ms;
  std::uint32_t retries_user = 0;
  Workload load = {};
};

struct FaultRates {
  Duration until = 0ms;    // no faults after
  Duration every = 400ms;  // one each, on average
  bool coordinator = true;
  bool workers = true;
  bool ranks = true;
  bool hangs = true;
  bool cuts = true;
  bool disk = true;
};

struct ScenarioOptions {
  std::uint64_t seed = 1;
  std::uint32_t workers = 2;
  std::uint32_t slots = 2;
  NetworkOptions network = {};
  std::vector<SimJob> jobs = {};
  FaultRates faults = {};
  std::vector<Strike> strikes = {};  // at the events with these numbers
  Sabotage sabotage = Sabotage::none;
  bool innocent = true;   // no program fails by itself
  Duration bound = 300s;  // after the last fault, every job is terminal by then (I17)
};

class Scenario {
 public:
  explicit Scenario(ScenarioOptions options);

  // The broken invariant, or nothing.
  std::optional<std::string> run();

  std::uint64_t events() const { return world_.events(); }
  const coordinator::ClusterState* state() const { return coordinator_->state(); }
  const coordinator::JobRecord* job(const std::string& name) const;
  std::uint64_t recoveries() const;
  std::uint64_t steps_committed() const { return ranks_.steps_committed; }

 private:
  void make_workers();
  void submit(const SimJob& job);
  void cause_faults();
  void one_fault();
  void hit(const Strike& strike);
  bool all_ended() const;
  void check_end();
  void trace(const coordinator::Decision& decision) const;
  SimWorker* worker_of(const std::string& peer);

  ScenarioOptions options_;
  World world_;
  RankWorld ranks_;
  Checkers checkers_;
  std::unique_ptr<SimCoordinator> coordinator_;
  std::vector<std::unique_ptr<SimWorker>> workers_;
  std::map<std::uint64_t, std::string> requests_;  // request -> key
  std::map<std::string, JobId> accepted_;
  std::uint64_t next_request_ = 1;
};

}  // namespace tutti::simulation
