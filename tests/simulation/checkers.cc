#include "tests/simulation/checkers.h"

#include <algorithm>
#include <utility>

namespace tutti::simulation {

using coordinator::JobRecord;
using coordinator::JobState;

namespace {

// DESIGN jobs, written down a second time on purpose: the code has its own table.
bool design_allows(JobState from, JobState to) {
  static const std::map<JobState, std::set<JobState>> kAllowed = {
      {JobState::queued, {JobState::placed, JobState::failed, JobState::cancelled}},
      {JobState::placed, {JobState::starting, JobState::queued, JobState::stopping}},
      {JobState::starting, {JobState::running, JobState::queued, JobState::stopping}},
      {JobState::running, {JobState::recovering, JobState::stopping}},
      {JobState::recovering, {JobState::running, JobState::stopping}},
      {JobState::stopping,
       {JobState::queued, JobState::done, JobState::failed, JobState::cancelled}},
  };
  const auto at = kAllowed.find(from);
  return at != kAllowed.end() && at->second.contains(to);
}

std::string name_of(const JobRecord& job) { return "job " + to_string(job.job); }

}  // namespace

void Checkers::restarted(const SimCoordinator& coordinator) {
  shadow_ = {};
  shadow_.restore(coordinator.disk().snapshot);
  for (const coordinator::Fact& fact : coordinator.disk().facts) shadow_.apply(fact);
  if (coordinator.state() == nullptr) return;
  check_accepted(*coordinator.state());
  if (coordinator.state()->snapshot() != shadow_.snapshot()) {
    world_.violate("I11", "a restart did not give the state that the journal holds");
  }
}

void Checkers::decided(const SimCoordinator& coordinator, const coordinator::Decision& decision) {
  check_transitions(decision);
  const coordinator::Snapshot state = coordinator.state()->snapshot();
  if (!decision.facts.empty() && state != shadow_.snapshot()) {
    world_.violate("I11", "replaying the facts gives another state");
  }
  check_gangs(state);
  check_slots(*coordinator.state(), state);
  check_users(state);
}

void Checkers::check_transitions(const coordinator::Decision& decision) {
  for (const coordinator::Fact& fact : decision.facts) {
    std::map<JobId, JobState> before;
    for (const auto& [id, job] : shadow_.jobs()) before[id] = job.state;
    shadow_.apply(fact);
    for (const auto& [id, job] : shadow_.jobs()) {
      const auto at = before.find(id);
      const JobState from = at == before.end() ? JobState::queued : at->second;
      if (from != job.state && !design_allows(from, job.state)) {
        world_.violate("I7", name_of(job) + " went from state " +
                                 std::to_string(static_cast<int>(from)) + " to " +
                                 std::to_string(static_cast<int>(job.state)));
      }
    }
  }
}

void Checkers::check_gangs(const coordinator::Snapshot& state) {
  for (const JobRecord& job : state.jobs) {
    if (job.state != JobState::running || !job.generation_alive) continue;
    std::size_t present = job.ranks_done;
    for (const ProcessId member : job.members) present += member ? 1 : 0;
    if (present != job.members.size() || present < job.terms.ranks_min) {
      world_.violate("I4", name_of(job) + " runs with " + std::to_string(present) + " of " +
                               std::to_string(job.members.size()) + " ranks");
    }
  }
}

void Checkers::check_slots(const coordinator::ClusterState& live,
                           const coordinator::Snapshot& state) {
  std::map<std::string, std::set<std::uint32_t>> held;
  for (const coordinator::ProcessRecord& process : state.processes) {
    if (!held[process.worker].insert(process.slot).second) {
      world_.violate("I6", "slot " + std::to_string(process.slot) + " of " + process.worker +
                               " was given twice");
    }
  }
  for (const coordinator::NodeView& node : live.nodes()) {
    if (node.state == "lost") continue;
    const std::size_t reserved = held[node.name].size();
    if (node.free_slots + reserved != node.slots) {
      world_.violate("I5", node.name + ": " + std::to_string(node.free_slots) + " free and " +
                               std::to_string(reserved) + " reserved of " +
                               std::to_string(node.slots));
    }
  }
}

void Checkers::check_users(const coordinator::Snapshot& state) {
  if (!innocent_) return;
  for (const JobRecord& job : state.jobs) {
    if (job.failures_user != 0) world_.violate("I8", name_of(job) + " was charged to its user");
  }
}

void Checkers::machines(const std::vector<std::unique_ptr<SimWorker>>& workers) {
  for (const auto& worker : workers) {
    for (const auto& [slot, count] : worker->slots_in_use()) {
      if (count > 1) {
        world_.violate("I6", std::to_string(count) + " processes are in slot " +
                                 std::to_string(slot) + " of " + worker->name());
      }
    }
  }
}

void Checkers::check_accepted(const coordinator::ClusterState& live) {
  for (const auto& [key, job] : accepted_) {
    if (live.find_job(job) == nullptr) {
      world_.violate("I1", "job " + to_string(job) + " was accepted and is not there");
    }
  }
}

void Checkers::accepted(const std::string& key, JobId job) {
  const auto [at, news] = accepted_.emplace(key, job);
  if (!news && at->second != job) {
    world_.violate("I2",
                   "key " + key + " gave jobs " + to_string(at->second) + " and " + to_string(job));
  }
  rejected_.erase(key);
}

void Checkers::rejected(const std::string& key) {
  if (accepted_.contains(key))
    world_.violate("I2", "key " + key + " was accepted and then refused");
  rejected_.insert(key);
}

void Checkers::order_sent(const wire::StartRank& order, const std::string& name) {
  if (rejected_.contains(name)) {
    world_.violate("I1", "job " + to_string(order.job) + " was refused and runs");
  }
}

}  // namespace tutti::simulation
