// The invariants of DESIGN that a coordinator and its workers must keep, checked after every
// decision.
//
// The checker keeps a shadow: the durable state as a replay of all facts gives it. Names are those
// of DESIGN.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "coordinator/cluster/durable.h"
#include "tests/simulation/sim_coordinator.h"
#include "tests/simulation/sim_worker.h"
#include "tests/simulation/world.h"

namespace tutti::simulation {

class Checkers {
 public:
  explicit Checkers(World& world) : world_(world) {}

  // After the decision's sync.
  void decided(const SimCoordinator& coordinator, const coordinator::Decision& decision);
  // A coordinator starts from its disk.
  void restarted(const SimCoordinator& coordinator);
  // Any time.
  void machines(const std::vector<std::unique_ptr<SimWorker>>& workers);

  // What clients were told.
  void accepted(const std::string& key, JobId job);
  // The key is tried anew: an earlier refusal says nothing about this one.
  void submitted(const std::string& key) { rejected_.erase(key); }
  void rejected(const std::string& key);
  void order_sent(const wire::StartRank& order, const std::string& name);

  // Jobs whose programs never fail by themselves must not be charged.
  void innocent(bool all_users_are) { innocent_ = all_users_are; }

 private:
  void check_transitions(const coordinator::Decision& decision);
  void check_gangs(const coordinator::Snapshot& state);
  void check_slots(const coordinator::ClusterState& live, const coordinator::Snapshot& state);
  void check_users(const coordinator::Snapshot& state);
  void check_accepted(const coordinator::ClusterState& live);

  World& world_;
  coordinator::Durable shadow_;
  std::map<std::string, JobId> accepted_;
  std::set<std::string> rejected_;
  bool innocent_ = true;
};

}  // namespace tutti::simulation
