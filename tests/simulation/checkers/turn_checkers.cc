// Whose turn it is, judged by what clients asked for: arrays, dependencies, quotas, places.
#include <algorithm>
#include <map>
#include <string>
#include <variant>

#include "coordinator/scheduler/quotas.h"
#include "tests/simulation/checkers/checkers.h"

namespace tutti::simulation {

namespace {

using coordinator::JobRecord;
using coordinator::JobState;

// An array never runs more than at_once of its tasks; one that is done ran, and to its end.
class ArrayChecker final : public Checker {
 public:
  void before_fact(const Observed& seen, const coordinator::Fact& fact) override {
    if (std::holds_alternative<coordinator::TaskCancelled>(fact)) {
      seen.world.reached("a task was cancelled before its turn");
    }
    const auto* folded = std::get_if<coordinator::JobForgotten>(&fact);
    const JobRecord* task = folded == nullptr ? nullptr : seen.shadow.job(folded->job);
    if (task != nullptr && task->array && task->state == JobState::failed) {
      seen.world.reached("a task of an array failed");
    }
  }

  void after_fact(const Observed& seen, const coordinator::Fact& fact) override {
    if (const auto* settled = std::get_if<coordinator::JobSettled>(&fact)) {
      const JobRecord* task = seen.shadow.job(settled->job);
      if (task == nullptr || !task->array || task->state != JobState::queued) return;
      seen.world.reached("a task came back to the queue");
    }
    const auto* started = std::get_if<coordinator::TaskStarted>(&fact);
    const JobRecord* array = started == nullptr ? nullptr : seen.shadow.job(started->array);
    const PlannedJob* planned = array == nullptr ? nullptr : planned_of(seen, *array);
    if (planned == nullptr || planned->spec.array.at_once == 0) return;
    const std::uint32_t limit = planned->spec.array.at_once;
    const auto active = static_cast<std::uint32_t>(
        std::count_if(seen.shadow.jobs().begin(), seen.shadow.jobs().end(),
                      [&](const auto& each) { return each.second.array == array->job; }));
    if (active == limit && array->tasks.waiting != 0) {
      seen.world.reached("an array waited for its own limit");
    }
    if (active <= limit) return;
    seen.world.violate("array", describe(*array) + " runs " + std::to_string(active) +
                                    " tasks, and " + std::to_string(limit) + " are its limit");
  }

  void ended(const Observed& seen) override {
    for (const auto& [id, array] : seen.shadow.jobs()) {
      for (std::uint32_t index = 0; index < array.tasks.states.size(); ++index) {
        if (array.tasks.states[index] != 'd') continue;
        const auto at = seen.ranks.history.find(JobId{id.value + 1 + index});
        if (at != seen.ranks.history.end() && at->second.programs_done != 0) continue;
        seen.world.violate("array", describe(array) + ": task " + std::to_string(index) +
                                        " is done and never came to its end");
      }
      const bool whole = array.tasks.done == array.tasks.states.size();
      if (array.state != JobState::done || whole) continue;
      seen.world.violate("array", describe(array) + " is done and not all of its tasks are");
    }
  }
};

// DESIGN jobs, written down a second time on purpose.
bool holds(const std::string& on, JobState ended) {
  if (on == "any") return true;
  return ended == (on == "ok" ? JobState::done : JobState::failed);
}

class DependencyChecker final : public Checker {
 public:
  void before_fact(const Observed& seen, const coordinator::Fact& fact) override {
    const auto* started = std::get_if<coordinator::GenerationStarted>(&fact);
    if (started == nullptr) return;
    const JobRecord* job = seen.shadow.job(started->job);
    const PlannedJob* planned = job == nullptr ? nullptr : planned_of(seen, *job);
    if (planned == nullptr || planned->after.empty()) return;
    for (const PlannedAfter& each : planned->after) {
      const auto at = ended_.find(seen.clients.accepted().at(each.job));
      if (at != ended_.end() && holds(each.on, at->second)) continue;
      seen.world.violate("dependency",
                         describe(*job) + " starts before " + each.job + " ended " + each.on);
    }
    seen.world.reached("a dependency released its job");
  }

  void after_fact(const Observed& seen, const coordinator::Fact& fact) override {
    const auto* settled = std::get_if<coordinator::JobSettled>(&fact);
    const JobRecord* job = settled == nullptr ? nullptr : seen.shadow.job(settled->job);
    if (job != nullptr && coordinator::is_terminal(job->state)) ended_[job->job] = job->state;
  }

  // What was never durable has not ended.
  void restarted(const Observed& seen) override {
    std::erase_if(ended_, [&](const auto& each) {
      const JobRecord* job = seen.shadow.job(each.first);
      return job != nullptr && job->state != each.second;
    });
  }

  void ended(const Observed& seen) override {
    for (const auto& [name, planned] : seen.clients.jobs()) {
      const auto at = seen.clients.accepted().find(name);
      if (at == seen.clients.accepted().end()) continue;
      const JobRecord* job = seen.shadow.job(at->second);
      if (job == nullptr) continue;
      for (const PlannedAfter& each : planned.after) {
        const auto on = ended_.find(seen.clients.accepted().at(each.job));
        if (on == ended_.end() || holds(each.on, on->second)) continue;
        check_never_ran(seen, *job, each);
      }
    }
  }

 private:
  static void check_never_ran(const Observed& seen, const JobRecord& job,
                              const PlannedAfter& after) {
    seen.world.reached("a job ended because its dependency did not hold");
    if (job.state == JobState::cancelled && !job.generation) return;
    seen.world.violate("dependency", describe(job) + " could never start, for " + after.job +
                                         " did not end " + after.on + ", and it is " +
                                         std::string(state_name(job.state)));
  }

  std::map<JobId, JobState> ended_;
};

struct Use {
  std::uint64_t slots = 0;
  std::uint64_t running = 0;
  std::uint64_t queued = 0;
};

// Nobody is given more than its quota at that time. Who held more before it was made less keeps it.
class QuotaChecker final : public Checker {
 public:
  void before_fact(const Observed& seen, const coordinator::Fact& fact) override {
    before_ = use_of(seen, owner_in(seen, fact));
  }

  void after_fact(const Observed& seen, const coordinator::Fact& fact) override {
    const std::string owner = owner_in(seen, fact);
    if (owner.empty()) return;
    const auto quota = seen.coordinator.quotas().of(owner);
    const Use use = use_of(seen, owner);
    const auto check = [&](std::uint64_t Use::*what, const auto& limit, const char* name) {
      if (!limit || use.*what <= *limit || use.*what <= before_.*what) return;
      seen.world.violate("quota", owner + " has " + std::to_string(use.*what) + " " + name +
                                      ", and " + std::to_string(*limit) + " are the most");
    };
    if (std::holds_alternative<coordinator::JobSubmitted>(fact)) {
      return check(&Use::queued, quota.queued, "queued jobs");
    }
    check(&Use::slots, quota.slots, "slots");
    check(&Use::running, quota.running, "jobs");
  }

  void decided(const Observed& seen, const coordinator::Decision& decision) override {
    if (decision.facts.empty() || seen.options.quotas.empty()) return;
    for (const auto& [owner, text] : seen.options.quotas) {
      const Use use = use_of(seen, owner);
      const auto quota = seen.coordinator.quotas().of(owner);
      if ((quota.slots && use.slots > *quota.slots) ||
          (quota.running && use.running > *quota.running)) {
        seen.world.reached("a quota was made less than its owner held");
      }
      const bool full = (quota.slots && use.slots == *quota.slots) ||
                        (quota.running && use.running == *quota.running);
      if (full && use.queued != 0) seen.world.reached("a job waited for its owner's quota");
    }
  }

 private:
  // Whose use the fact may add to; empty: nobody's.
  static std::string owner_in(const Observed& seen, const coordinator::Fact& fact) {
    if (seen.options.quotas.empty()) return {};
    if (const auto* submitted = std::get_if<coordinator::JobSubmitted>(&fact)) {
      return submitted->owner;
    }
    JobId id;
    if (const auto* started = std::get_if<coordinator::GenerationStarted>(&fact)) {
      id = started->job;
    }
    if (const auto* resized = std::get_if<coordinator::JobReleasing>(&fact)) id = resized->job;
    const JobRecord* job = id ? seen.shadow.job(id) : nullptr;
    return job == nullptr ? std::string() : job->owner;
  }

  static Use use_of(const Observed& seen, const std::string& owner) {
    Use out;
    if (owner.empty()) return out;
    for (const auto& [id, job] : seen.shadow.jobs()) {
      if (job.owner != owner || coordinator::is_terminal(job.state)) continue;
      out.queued += job.tasks.waiting;
      if (!job.tasks.states.empty()) continue;
      if (job.state == JobState::queued) {
        ++out.queued;
        continue;
      }
      ++out.running;
      // Newcomers hold their slots before the job has its new size.
      out.slots += std::max<std::size_t>(job.size, job.release.next.size());
    }
    return out;
  }

  Use before_;
};

// The queue's order, as far as it needs no knowledge of nodes: a training job is not passed by one
// of its owner that asks for as much and stands behind it. Preempted ones have their old place, and
// go on from their newest checkpoint.
class PlaceChecker final : public Checker {
 public:
  void before_fact(const Observed& seen, const coordinator::Fact& fact) override {
    if (const auto* ordered = std::get_if<coordinator::GroupOrdered>(&fact)) {
      check_base(seen, *ordered);
    }
    const auto* started = std::get_if<coordinator::GenerationStarted>(&fact);
    const JobRecord* job = started == nullptr ? nullptr : seen.shadow.job(started->job);
    if (job == nullptr || !is_plain(*job) || job->terms.time_ms_max != 0) return;
    for (const auto& [id, since] : waits_) {
      const JobRecord* other = seen.shadow.job(id);
      if (other == nullptr || id == job->job || seen.world.now() - since < kSeen) continue;
      if (!stands_before(seen, *other, *job)) continue;
      seen.world.violate("place", describe(*job) + " starts before " + describe(*other) +
                                      ", which stands before it and asks for no more");
    }
  }

  void decided(const Observed& seen, const coordinator::Decision& decision) override {
    if (decision.facts.empty()) return;
    look(seen);
  }
  void restarted(const Observed& seen) override {
    waits_.clear();
    look(seen);
  }

 private:
  // By then the scheduler knows of it.
  static constexpr Duration kSeen = 3s;

  static bool is_plain(const JobRecord& job) {
    return job.state == JobState::queued && job.terms.kind == "train" && job.dependencies.empty() &&
           job.outcome.not_before_unix_ms == 0 && job.terms.begin_unix_ms == 0;
  }

  static bool stands_before(const Observed& seen, const JobRecord& left, const JobRecord& right) {
    const PlannedJob* first = planned_of(seen, left);
    const PlannedJob* second = planned_of(seen, right);
    if (first == nullptr || second == nullptr || !is_plain(left)) return false;
    if (left.owner != right.owner) return false;
    // Whose numerics profile is fixed waits for nodes that have it.
    if (!left.terms.profile.empty() && left.terms.profile != right.terms.profile) return false;
    if (!asks_no_more(first->spec.resources, second->spec.resources)) return false;
    if (first->spec.priority != second->spec.priority) {
      return first->spec.priority > second->spec.priority;
    }
    return left.submitted_unix_ms < right.submitted_unix_ms;
  }

  static bool asks_no_more(const spec::ResourceSpec& left, const spec::ResourceSpec& right) {
    return left.ranks_min <= right.ranks_min && left.memory_bytes <= right.memory_bytes &&
           left.device_memory_bytes <= right.device_memory_bytes &&
           (left.labels.empty() || left.labels == right.labels) &&
           (left.device == "any" || left.device == right.device);
  }

  void look(const Observed& seen) {
    std::erase_if(waits_, [&](const auto& each) {
      const JobRecord* job = seen.shadow.job(each.first);
      return job == nullptr || !is_plain(*job);
    });
    for (const auto& [id, job] : seen.shadow.jobs()) {
      if (is_plain(job)) waits_.emplace(id, seen.world.now());
    }
  }

  static void check_base(const Observed& seen, const coordinator::GroupOrdered& ordered) {
    const JobRecord* job = seen.shadow.job(ordered.job);
    if (job == nullptr || job->checkpoints.empty()) return;
    const std::uint64_t saved = job->checkpoints.back().step;
    if (ordered.formation.base_step < saved) {
      seen.world.violate("place", describe(*job) + " goes on from step " +
                                      std::to_string(ordered.formation.base_step) + ", and step " +
                                      std::to_string(saved) + " is saved");
    }
    if (job->preemptions != 0 && ordered.formation.base_step == saved) {
      seen.world.reached("a preempted job went on from its checkpoint");
    }
  }

  std::map<JobId, Instant> waits_;
};

}  // namespace

std::unique_ptr<Checker> make_array_checker() { return std::make_unique<ArrayChecker>(); }
std::unique_ptr<Checker> make_dependency_checker() { return std::make_unique<DependencyChecker>(); }
std::unique_ptr<Checker> make_quota_checker() { return std::make_unique<QuotaChecker>(); }
std::unique_ptr<Checker> make_place_checker() { return std::make_unique<PlaceChecker>(); }

}  // namespace tutti::simulation
