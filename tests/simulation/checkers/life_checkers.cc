// How jobs fare: I8, I9, I10, I17, I18.
#include <algorithm>
#include <optional>
#include <string>
#include <variant>

#include "tests/simulation/checkers/checkers.h"

namespace tutti::simulation {

namespace {

using coordinator::JobRecord;
using coordinator::JobState;

class ChargeChecker final : public Checker {
 public:
  // Whose budget is used up does not begin again.
  void before_fact(const Observed& seen, const coordinator::Fact& fact) override {
    const auto* started = std::get_if<coordinator::GenerationStarted>(&fact);
    const JobRecord* job = started == nullptr ? nullptr : seen.shadow.job(started->job);
    const PlannedJob* planned = job == nullptr ? nullptr : planned_of(seen, *job);
    if (planned == nullptr) return;
    const spec::RetriesSpec& budget = planned->spec.retries;
    if (job->failures_infrastructure <= budget.infrastructure &&
        job->failures_user <= budget.user) {
      return;
    }
    seen.world.violate("I8", describe(*job) + " begins again after " +
                                 std::to_string(job->failures_infrastructure) +
                                 " failures of the infrastructure and " +
                                 std::to_string(job->failures_user) + " of its own");
  }

  void after_fact(const Observed& seen, const coordinator::Fact& fact) override {
    const auto* counted = std::get_if<coordinator::FailureCounted>(&fact);
    if (counted == nullptr) return;
    const JobRecord* job = seen.shadow.job(counted->job);
    const auto at = seen.ranks.history.find(counted->job);
    const std::uint32_t real = at == seen.ranks.history.end() ? 0 : at->second.user_failures;
    if (job == nullptr || job->failures_user <= real) return;
    seen.world.violate("I8", describe(*job) + " was charged for " +
                                 std::to_string(job->failures_user) +
                                 " failures, of which its own were " + std::to_string(real));
  }

  // What can only fail through the infrastructure does not fail, unless that has a budget.
  void ended(const Observed& seen) override {
    for (const auto& [id, job] : seen.shadow.jobs()) check_budget(seen, job);
    for (const auto& [name, planned] : seen.clients.jobs()) {
      if (planned.must != Must::be_done || seen.clients.cancelled().contains(name)) continue;
      const auto at = seen.clients.accepted().find(name);
      if (at == seen.clients.accepted().end()) continue;
      const JobRecord* job = seen.shadow.job(at->second);
      if (job == nullptr || job->state == JobState::done) continue;
      if (!coordinator::is_terminal(job->state)) continue;  // I17
      seen.world.violate("I8", describe(*job) + " did not end done: " + job->outcome.message);
    }
  }

 private:
  static void check_budget(const Observed& seen, const JobRecord& job) {
    const PlannedJob* planned = planned_of(seen, job);
    if (planned == nullptr || job.state != JobState::failed) return;
    if (job.outcome.message.find("retries.infrastructure") == std::string::npos) return;
    seen.world.reached("a budget for the infrastructure's failures was used up");
    if (job.failures_infrastructure > planned->spec.retries.infrastructure) return;
    seen.world.violate("I8", describe(job) + " was given up after " +
                                 std::to_string(job.failures_infrastructure) + " failures of " +
                                 std::to_string(planned->spec.retries.infrastructure));
  }
};

// Jobs leave for others of a strictly higher priority only, so that no cycle is possible; and the
// job whose turn it is (priority, then age) starts within a bound once nothing disturbs.
class OrderChecker final : public Checker {
 public:
  void before_fact(const Observed& seen, const coordinator::Fact& fact) override {
    const auto* leaving = std::get_if<coordinator::JobReleasing>(&fact);
    if (leaving == nullptr || leaving->release.cause != coordinator::ReleaseCause::preempted) {
      return;
    }
    const JobRecord* job = seen.shadow.job(leaving->job);
    // One that leaves already is only told to hurry.
    if (job == nullptr || job->release.to != coordinator::ReleaseTo::none) return;
    seen.world.reached("a job was preempted");
    for (const auto& [id, other] : seen.shadow.jobs()) {
      if (priority_of(seen, other) <= priority_of(seen, *job)) continue;
      if (other.state == JobState::queued || other.tasks.waiting != 0 ||
          other.state == JobState::recovering)
        return;
    }
    seen.world.violate("I9",
                       describe(*job) + " is preempted and no job of a higher priority waits");
  }

  void looked(const Observed& seen) override {
    const Instant calm = Instant{} + seen.options.until + kRecovered;
    if (seen.world.now() < calm || seen.world.now() - looked_ < 1s) return;
    looked_ = seen.world.now();
    const JobRecord* head = nullptr;
    for (const auto& [id, job] : seen.shadow.jobs()) {
      if (job.state != JobState::queued || !job.dependencies.empty() || !fits(seen, job)) continue;
      if (head == nullptr || job.terms.priority > head->terms.priority) head = &job;
    }
    const JobId job = head == nullptr ? JobId{} : head->job;
    if (job != head_) since_ = seen.world.now();
    head_ = job;
    if (head == nullptr || seen.world.now() - since_ < kStartBound) return;
    seen.world.violate("I9", describe(*head) + " is the next to start and waits for " +
                                 std::to_string(to_ms(kStartBound) / 1000) + " s");
  }

 private:
  static constexpr Duration kRecovered = 30s;
  static constexpr Duration kStartBound = 150s;

  // As its client asked for it.
  static std::int32_t priority_of(const Observed& seen, const JobRecord& job) {
    const PlannedJob* planned = planned_of(seen, job);
    return planned == nullptr ? job.terms.priority : planned->spec.priority;
  }

  static bool fits(const Observed& seen, const JobRecord& job) {
    return job.terms.ranks_min <= room_for(seen, job);
  }

  Instant looked_;
  Instant since_;
  JobId head_;
};

// A worker that cannot be heard is lost by its lease, so that no job counts on it. (That silence of
// the coordinator ends no healthy rank is seen by the workers.)
class SilenceChecker final : public Checker {
 public:
  void looked(const Observed& seen) override {
    if (seen.world.now() - looked_ < 100ms) return;
    looked_ = seen.world.now();
    const SimCoordinator& coordinator = seen.coordinator;
    if (coordinator.state() == nullptr || coordinator.standing_still()) {
      steady_since_ = seen.world.now();
      return;
    }
    steady_since_ = std::max(steady_since_, coordinator.alive_since());
    for (const auto& worker : seen.workers) {
      const std::optional<Instant> since = worker->unreachable_since();
      if (!since) continue;
      const Instant counted = std::max(*since, steady_since_);
      const Duration bound = bound_of(seen.options);
      if (seen.world.now() - counted < bound) continue;
      const coordinator::WorkerRecord* record = seen.shadow.worker(worker->name());
      if (record == nullptr || record->lost) continue;
      seen.world.violate("I10", worker->name() + " was not heard of for " +
                                    std::to_string(to_ms(bound)) + " ms and is not lost");
    }
  }

 private:
  // The lease of five seconds and a tenth; and what a disk, or a frame on its way, may be late.
  static Duration bound_of(const ScenarioOptions& options) {
    return has_fault(options, {"slow-disk", "stop-coordinator", "congest-network", "hold-messages"})
               ? 8'500ms
               : 5'500ms;
  }

  Instant looked_;
  Instant steady_since_;
};

class LivenessChecker final : public Checker {
 public:
  void ended(const Observed& seen) override {
    std::string who;
    for (const auto& [name, planned] : seen.clients.jobs()) {
      if (seen.clients.refused().contains(name) || seen.clients.given_up().contains(name)) continue;
      const auto at = seen.clients.accepted().find(name);
      const JobRecord* job =
          at == seen.clients.accepted().end() ? nullptr : seen.shadow.job(at->second);
      if (at != seen.clients.accepted().end() && job == nullptr) continue;  // forgotten
      if (job != nullptr && coordinator::is_terminal(job->state)) continue;
      who += " " + name;
      if (job != nullptr) {
        who += " (" + std::string(state_name(job->state)) + ", generation " +
               to_string(job->generation) + ")";
      }
    }
    if (!who.empty()) return seen.world.violate("I17", "not ended within the bound:" + who);
    if (!seen.shadow.processes().empty()) {
      const auto& process = seen.shadow.processes().begin()->second;
      return seen.world.violate("I17", "all jobs have ended and process " +
                                           to_string(process.process) + " holds slot " +
                                           std::to_string(process.slot) + " of " + process.worker);
    }
    for (const auto& worker : seen.workers) {
      if (worker->slots_in_use().empty()) continue;
      seen.world.violate("I17", "all jobs have ended and " + worker->name() + " runs a process");
    }
  }
};

class AnswerChecker final : public Checker {
 public:
  void looked(const Observed& seen) override {
    if (seen.world.now() - looked_ < 1s) return;
    looked_ = seen.world.now();
    check(seen);
  }
  void ended(const Observed& seen) override { check(seen); }

 private:
  static constexpr Duration kAnswerBound = 30s;

  void check(const Observed& seen) {
    if (seen.coordinator.state() == nullptr || !seen.coordinator.takes_appends()) return;
    for (const auto& [id, request] : seen.clients.requests()) {
      if (request.answered || request.life != seen.coordinator.life()) continue;
      if (seen.world.now() - request.sent < kAnswerBound) continue;
      return seen.world.violate(
          "I18", "the " + request.what + " of " + request.job + " has no answer after 30 s");
    }
  }

  Instant looked_;
};

}  // namespace

std::unique_ptr<Checker> make_charge_checker() { return std::make_unique<ChargeChecker>(); }
std::unique_ptr<Checker> make_order_checker() { return std::make_unique<OrderChecker>(); }
std::unique_ptr<Checker> make_silence_checker() { return std::make_unique<SilenceChecker>(); }
std::unique_ptr<Checker> make_liveness_checker() { return std::make_unique<LivenessChecker>(); }
std::unique_ptr<Checker> make_answer_checker() { return std::make_unique<AnswerChecker>(); }

}  // namespace tutti::simulation
