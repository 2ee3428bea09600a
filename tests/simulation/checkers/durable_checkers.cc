// What must survive the coordinator: I1, I7, I11.
#include <map>
#include <set>
#include <utility>
#include <variant>

#include "tests/simulation/checkers/checkers.h"

namespace tutti::simulation {

namespace {

using coordinator::JobState;

JobId job_in(const coordinator::Fact& fact) {
  return std::visit(
      [](const auto& each) {
        if constexpr (requires { each.job; }) {
          return each.job;
        } else {
          return JobId{};
        }
      },
      fact);
}

class AcceptedChecker final : public Checker {
 public:
  void after_fact(const Observed&, const coordinator::Fact& fact) override {
    if (const auto* forgotten = std::get_if<coordinator::JobForgotten>(&fact)) {
      forgotten_.insert(forgotten->job);
    }
  }
  void restarted(const Observed& seen) override { check(seen); }
  void ended(const Observed& seen) override { check(seen); }

  void sent(const Observed& seen, const coordinator::SendToWorker& frame) override {
    const auto* start = std::get_if<wire::StartRank>(&frame.message);
    if (start == nullptr) return;
    const std::string name = start->name.substr(0, start->name.find('.'));
    if (!seen.clients.refused().contains(name)) return;
    seen.world.violate("I1", "job " + to_string(start->job) + " was refused and runs");
  }

 private:
  void check(const Observed& seen) {
    for (const auto& [name, job] : seen.clients.accepted()) {
      if (forgotten_.contains(job) || seen.shadow.job(job) != nullptr) continue;
      seen.world.violate("I1",
                         "job " + to_string(job) + " (" + name + ") was accepted and is not there");
    }
  }

  std::set<JobId> forgotten_;
};

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

class TransitionChecker final : public Checker {
 public:
  void before_fact(const Observed& seen, const coordinator::Fact& fact) override {
    const coordinator::JobRecord* job = seen.shadow.job(job_in(fact));
    before_ = job == nullptr ? JobState::queued : job->state;
  }

  void after_fact(const Observed& seen, const coordinator::Fact& fact) override {
    const coordinator::JobRecord* job = seen.shadow.job(job_in(fact));
    if (job == nullptr || job->state == before_ || design_allows(before_, job->state)) return;
    seen.world.violate("I7", describe(*job) + " went from " + std::string(state_name(before_)) +
                                 " to " + std::string(state_name(job->state)));
  }

  void looked(const Observed& seen) override {
    if (seen.coordinator.state() == nullptr || !seen.coordinator.synced()) return;
    if (seen.world.now() - looked_ < 50ms) return;
    looked_ = seen.world.now();
    for (const auto& [id, job] : seen.shadow.jobs()) {
      if (coordinator::is_terminal(job.state)) ended_.emplace(id, job.state);
    }
  }

  void restarted(const Observed& seen) override {
    for (const auto& [id, state] : ended_) {
      const coordinator::JobRecord* job = seen.coordinator.state()->find_job(id);
      if (job == nullptr || job->state == state) continue;
      seen.world.violate("I7", describe(*job) + " had ended as " + std::string(state_name(state)) +
                                   " and is " + std::string(state_name(job->state)));
    }
  }

 private:
  JobState before_ = JobState::queued;
  Instant looked_;
  std::map<JobId, JobState> ended_;
};

class ReplayChecker final : public Checker {
 public:
  void decided(const Observed& seen, const coordinator::Decision& decision) override {
    if (decision.facts.empty()) return;
    if (seen.coordinator.state()->snapshot() == seen.shadow.snapshot()) return;
    seen.world.violate("I11", "replaying the facts gives another state");
  }

  void restarted(const Observed& seen) override {
    const std::string is = encode_snapshot(seen.coordinator.state()->snapshot());
    if (is == encode_snapshot(seen.shadow.snapshot())) return;
    seen.world.violate("I11", "a restart did not give the state that the journal holds");
  }
};

}  // namespace

std::unique_ptr<Checker> make_accepted_checker() { return std::make_unique<AcceptedChecker>(); }
std::unique_ptr<Checker> make_transition_checker() { return std::make_unique<TransitionChecker>(); }
std::unique_ptr<Checker> make_replay_checker() { return std::make_unique<ReplayChecker>(); }

}  // namespace tutti::simulation
