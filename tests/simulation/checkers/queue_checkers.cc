// Whose turn it is among jobs that run or wait, judged by what clients asked for and by what was
// promised: seats of broken gangs, the start of the head of the queue, and the order of the queue.
#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "coordinator/scheduler/job_queue.h"
#include "tests/simulation/checkers/checkers.h"

namespace tutti::simulation {

namespace {

using coordinator::JobRecord;
using coordinator::JobState;

using Counts = std::map<std::string, std::uint32_t>;  // by worker

// The infrastructure's failures cost a job no place.
bool is_bereft(const JobRecord& job) {
  const wire::FailureClass failure = job.outcome.failure;
  return failure == wire::FailureClass::infrastructure || failure == wire::FailureClass::own;
}

// A program's gang that is to begin anew, on its way to the queue or in it.
bool begins_anew(const JobRecord& job) {
  const bool returns = job.state == JobState::queued ||
                       (job.state == JobState::stopping && job.outcome.state == JobState::queued);
  return job.terms.kind == "run" && returns && is_bereft(job);
}

// Its other ranks keep their state and wait for the lost ones' places.
bool waits_for_ranks(const JobRecord& job) {
  const bool holds = job.state == JobState::placed || job.state == JobState::starting ||
                     job.state == JobState::recovering;
  return job.terms.kind != "run" && holds && !job.generation_alive &&
         job.release.to == coordinator::ReleaseTo::none;
}

// Nobody else is placed where a gang lost a rank, for as long as its on_loss.wait, unless the node
// has room beside what the gang needs there.
class HoldChecker final : public Checker {
 public:
  void before_fact(const Observed& seen, const coordinator::Fact& fact) override {
    if (const auto* started = std::get_if<coordinator::GenerationStarted>(&fact)) {
      note_return(seen, started->job);
      check(seen, started->job, started->gang);
    }
    // Ranks that have to leave a drained node are no newcomers.
    const auto* resized = std::get_if<coordinator::JobReleasing>(&fact);
    if (resized != nullptr && resized->release.cause != coordinator::ReleaseCause::moved) {
      check(seen, resized->job, resized->newcomers);
    }
  }

  void after_fact(const Observed& seen, const coordinator::Fact& fact) override {
    if (const auto* started = std::get_if<coordinator::GenerationStarted>(&fact)) {
      held_.erase(started->job);
    }
    if (const auto* stopping = std::get_if<coordinator::JobStopping>(&fact)) {
      hold(seen, stopping->job);
    }
    if (const auto* aborted = std::get_if<coordinator::GenerationAborted>(&fact)) {
      hold(seen, aborted->job);
    }
  }

  // By the time of day it may be over.
  void restarted(const Observed& seen) override {
    if (has_fault(seen.options, {"step-clock"})) held_.clear();
  }

 private:
  struct Held {
    Counts homes;
    Instant until;
  };

  void hold(const Observed& seen, JobId id) {
    held_.erase(id);
    const JobRecord* job = seen.shadow.job(id);
    const PlannedJob* planned = job == nullptr ? nullptr : planned_of(seen, *job);
    if (planned == nullptr) return;
    if (!begins_anew(*job) && !waits_for_ranks(*job)) return;
    // A task that never ran may have stood in the line of a slot.
    if (job->array && job->started_unix_ms == 0) return;
    const spec::ResourceSpec& asked = planned->spec.resources;
    if (asked.cores != 0 || asked.memory_bytes != 0 || asked.device_memory_bytes != 0) return;
    Held held;
    // The failure's time of day is kept in whole milliseconds.
    held.until =
        seen.world.now() +
        std::chrono::milliseconds(std::max<std::uint64_t>(planned->spec.on_loss.wait_ms, 1) - 1);
    for (const std::string& home : job->homes) ++held.homes[home];
    held_[id] = std::move(held);
  }

  void note_return(const Observed& seen, JobId id) {
    const auto at = held_.find(id);
    const JobRecord* job = seen.shadow.job(id);
    if (at == held_.end() || !begins_anew(*job) || seen.world.now() >= at->second.until) return;
    const auto& jobs = seen.shadow.jobs();
    const bool others = std::any_of(jobs.begin(), jobs.end(), [&](const auto& each) {
      return each.first != id && each.second.state == JobState::queued &&
             each.second.terms.priority >= job->terms.priority;
    });
    if (others) seen.world.reached("a broken gang went before who had waited");
  }

  void check(const Observed& seen, JobId newcomer,
             const std::vector<coordinator::Placement>& placements) {
    const JobRecord* comes = seen.shadow.job(newcomer);
    if (comes == nullptr || begins_anew(*comes) || waits_for_ranks(*comes)) return;
    Counts taken;
    for (const coordinator::Placement& each : placements) {
      if (!each.survivor && !each.lined_up) ++taken[each.worker];
    }
    for (const auto& [id, held] : held_) {
      const JobRecord* job = seen.shadow.job(id);
      if (job == nullptr || id == newcomer || seen.world.now() >= held.until) continue;
      if (!begins_anew(*job) && !waits_for_ranks(*job)) continue;
      // Who is at its quota by now holds nothing.
      const auto quota = seen.coordinator.quotas().of(job->owner);
      if (quota.slots || quota.running) continue;
      for (const auto& [node, ranks] : held.homes) {
        if (taken.contains(node)) check_node(seen, *job, node, ranks, taken.at(node));
      }
    }
  }

  static void check_node(const Observed& seen, const JobRecord& job, const std::string& node,
                         std::uint32_t ranks, std::uint32_t taken) {
    const coordinator::WorkerRecord* worker = seen.shadow.worker(node);
    if (worker == nullptr || worker->lost || worker->draining()) return;
    const auto& avoid = job.terms.avoid;
    if (std::find(avoid.begin(), avoid.end(), node) != avoid.end()) return;
    std::set<std::uint32_t> used;
    std::uint32_t own = 0;
    for (const ProcessId each : seen.shadow.processes_on(node)) {
      const coordinator::ProcessRecord& process = *seen.shadow.process(each);
      used.insert(process.slot);
      const bool keeps = job.terms.kind == "run" ? !process.lost : is_member(job, each);
      if (process.job == job.job && keeps) ++own;
    }
    const auto free =
        worker->slots - std::min(worker->slots, static_cast<std::uint32_t>(used.size()));
    const std::uint32_t needed = ranks - std::min(ranks, own);
    if (needed == 0 || free >= needed + taken) return;
    seen.world.violate("held", "of " + std::to_string(free) + " free slots of " + node + ", " +
                                   std::to_string(taken) + " are given away, and " + describe(job) +
                                   ", which lost ranks, needs " + std::to_string(needed) +
                                   " there");
  }

  std::map<JobId, Held> held_;
};

// What follows is judged where jobs are told apart by their ranks, owners, priorities and limits
// alone, and nothing fails.
class PlainQueue {
 public:
  bool holds(const Observed& seen) {
    if (!plain_) {
      const auto& jobs = seen.clients.jobs();
      plain_ = seen.options.faults.empty() && seen.options.strikes.empty() &&
               seen.options.refusing == 0 && seen.options.quotas.empty() && !jobs.empty() &&
               std::all_of(jobs.begin(), jobs.end(),
                           [](const auto& each) { return is_plain(each.second); });
    }
    return *plain_;
  }

 private:
  static bool is_plain(const PlannedJob& planned) {
    const spec::JobSpec& spec = planned.spec;
    const spec::ResourceSpec& asked = spec.resources;
    return spec.kind == spec::JobKind::run && asked.ranks_min == asked.ranks_max &&
           asked.cores == 0 && asked.memory_bytes == 0 && asked.device_memory_bytes == 0 &&
           asked.labels.empty() && asked.device == "any" && spec.array.count == 0 &&
           planned.after.empty() && spec.delay_ms == 0 && spec.begin_unix_ms == 0 &&
           planned.load.user_failure == 0;
  }

  std::optional<bool> plain_;
};

// By then the scheduler knows of a job, or of an end.
constexpr Duration kSeen = 2s;

// The head of the queue starts when it was told, though others were put before it meanwhile; and it
// is told no later a time than the limits of those that run give.
class BackfillChecker final : public Checker {
 public:
  void before_fact(const Observed& seen, const coordinator::Fact& fact) override {
    const auto* started = std::get_if<coordinator::GenerationStarted>(&fact);
    if (started == nullptr || !queue_.holds(seen)) return;
    const auto at = promised_.find(started->job);
    if (at != promised_.end()) {
      if (at->second.start_unix_ms) seen.world.reached("a head of the queue had a promised start");
      check_start(seen, started->job, at->second);
      promised_.erase(at);
    } else if (!promised_.empty()) {
      seen.world.reached("a job was put before the head of the queue");
      // What is more urgent may take what the head was told of.
      std::erase_if(promised_, [&](const auto& each) {
        return seen.shadow.job(each.first)->terms.priority <
               seen.shadow.job(started->job)->terms.priority;
      });
    }
  }

  void looked(const Observed& seen) override {
    if (seen.world.now() - looked_ < 100ms || !queue_.holds(seen)) return;
    looked_ = seen.world.now();
    std::optional<JobId> head;
    for (const auto& [id, job] : seen.shadow.jobs()) {
      if (seen.coordinator.state() == nullptr || job.state != JobState::queued) continue;
      const auto why = seen.coordinator.explain(id);
      if (!why || why->position != 1 || why->reason != coordinator::ExplainReason::room) continue;
      head = id;
      promise(seen, job, *why);
    }
    // One that somebody has passed since has no promise any more.
    std::erase_if(promised_, [&](const auto& each) { return !head || each.first != *head; });
    if (head) check_start(seen, *head, promised_.at(*head));
  }

 private:
  struct Promise {
    std::optional<std::int64_t> start_unix_ms;
    std::vector<JobId> must_end;   // where no time is known
    std::optional<Instant> ended;  // all of them have
  };

  void promise(const Observed& seen, const JobRecord& job, const coordinator::Explanation& why) {
    const auto [at, news] = promised_.try_emplace(job.job);
    if (!news) return;
    at->second.start_unix_ms = why.earliest_unix_ms;
    at->second.must_end = why.must_end;
    const std::optional<std::int64_t> limits = start_by_limits(seen, job);
    if (!limits || (why.earliest_unix_ms && *why.earliest_unix_ms <= *limits + to_ms(kSeen))) {
      return;
    }
    const auto from_now = [&](std::int64_t unix_ms) {
      return std::to_string(unix_ms - seen.world.wall().unix_ms) + " ms";
    };
    seen.world.violate(
        "backfill",
        describe(job) + " is told to start " +
            (why.earliest_unix_ms ? "in " + from_now(*why.earliest_unix_ms) : "at no time") +
            ", and by the limits of those that run it could in " + from_now(*limits));
  }

  // When enough of those that hold slots have reached their limits.
  static std::optional<std::int64_t> start_by_limits(const Observed& seen, const JobRecord& job) {
    std::uint64_t free = seen.options.workers * seen.options.slots;
    std::multimap<std::int64_t, std::uint64_t> ends;
    for (const auto& [id, other] : seen.shadow.jobs()) {
      // Ranks that have ended hold nothing any more.
      const std::uint64_t held = seen.shadow.processes_of(id).size();
      const PlannedJob* planned = planned_of(seen, other);
      free -= held;
      if (held == 0 || planned == nullptr || planned->spec.limit.time_ms == 0) continue;
      const std::int64_t now = seen.world.wall().unix_ms;
      const std::int64_t since = other.running_unix_ms != 0 ? other.running_unix_ms : now;
      std::int64_t end = since + static_cast<std::int64_t>(planned->spec.limit.time_ms);
      // Who was told to end has its grace, from when it was told on.
      if (other.state == JobState::stopping)
        end = std::max(end, now + to_ms(coordinator::ClusterSettings{}.stop_grace));
      ends.emplace(end, held);
    }
    for (const auto& [end, slots] : ends) {
      free += slots;
      if (free >= job.terms.ranks_min) return end;
    }
    return std::nullopt;
  }

  static void check_start(const Observed& seen, JobId id, Promise& promise) {
    const JobRecord& job = *seen.shadow.job(id);
    if (promise.start_unix_ms) {
      const std::int64_t late = seen.world.wall().unix_ms - *promise.start_unix_ms;
      if (late <= to_ms(kLate)) return;
      return seen.world.violate("backfill", describe(job) + " was to start by now and waits for " +
                                                std::to_string(late) + " ms more");
    }
    const bool waits =
        std::any_of(promise.must_end.begin(), promise.must_end.end(), [&](JobId each) {
          const JobRecord* other = seen.shadow.job(each);
          return other != nullptr && !coordinator::is_terminal(other->state);
        });
    if (waits || promise.must_end.empty()) return;
    if (!promise.ended) promise.ended = seen.world.now();
    if (seen.world.now() - *promise.ended <= kLate) return;
    seen.world.violate("backfill",
                       describe(job) + " waits though all have ended that it had to wait for");
  }

  // Who is ended at its limit has a grace.
  static constexpr Duration kLate = 4s;

  PlainQueue queue_;
  Instant looked_;
  std::map<JobId, Promise> promised_;
};

// Overdue jobs, then priority, then submission; and who had nothing goes before who had.
class TurnChecker final : public Checker {
 public:
  void before_fact(const Observed& seen, const coordinator::Fact& fact) override {
    const auto* started = std::get_if<coordinator::GenerationStarted>(&fact);
    if (started == nullptr || !queue_.holds(seen)) return;
    const JobRecord& job = *seen.shadow.job(started->job);
    for (const auto& [id, since] : waits_) {
      const JobRecord* other = seen.shadow.job(id);
      if (other == nullptr || id == job.job || other->state != JobState::queued) continue;
      note_paths(seen, job, *other);
      // What ends before the head starts may go before it.
      if (seen.world.now() - since < kSeen || job.terms.time_ms_max != 0) continue;
      if (other->terms.ranks_min > job.terms.ranks_min || !stands_before(seen, *other, job))
        continue;
      seen.world.violate(
          "turn", describe(job) + " starts before " + describe(*other) + ", whose turn it is");
    }
    has_run_.insert(owner_of(seen, job));
  }

  void after_fact(const Observed& seen, const coordinator::Fact& fact) override {
    if (const auto* settled = std::get_if<coordinator::JobSettled>(&fact)) {
      const JobRecord* job = seen.shadow.job(settled->job);
      if (job != nullptr && job->generation) {
        used_since_.emplace(owner_of(seen, *job), seen.world.wall().unix_ms);
      }
    }
  }

  void decided(const Observed& seen, const coordinator::Decision& decision) override {
    if (decision.facts.empty() || !queue_.holds(seen)) return;
    std::erase_if(waits_, [&](const auto& each) {
      const JobRecord* job = seen.shadow.job(each.first);
      return job == nullptr || job->state != JobState::queued;
    });
    for (const auto& [id, job] : seen.shadow.jobs()) {
      if (job.state == JobState::queued) waits_.emplace(id, seen.world.now());
    }
  }

 private:
  // The shares of users are looked at once a minute.
  static constexpr std::int64_t kSharesMs = 61'000;
  // One alone that had all of it is put back by half an hour.
  static constexpr std::int64_t kPutBackMs = 20 * 60'000;

  // As its client gave it.
  static std::string owner_of(const Observed& seen, const JobRecord& job) {
    const PlannedJob* planned = planned_of(seen, job);
    return planned == nullptr ? job.owner : planned->owner;
  }

  static bool is_overdue(const Observed& seen, const JobRecord& job) {
    return seen.world.wall().unix_ms - job.queued_unix_ms >=
           coordinator::scheduler::kOverdueAfterMs;
  }

  // `left` had nothing, and `right` had all there was.
  bool had_less(const Observed& seen, const JobRecord& left, const JobRecord& right) const {
    const auto at = used_since_.find(owner_of(seen, right));
    return !has_run_.contains(owner_of(seen, left)) && used_since_.size() == 1 &&
           at != used_since_.end() && seen.world.wall().unix_ms - at->second >= kSharesMs &&
           left.submitted_unix_ms - right.submitted_unix_ms < kPutBackMs;
  }

  bool stands_before(const Observed& seen, const JobRecord& left, const JobRecord& right) const {
    const bool overdue = is_overdue(seen, left);
    if (overdue != is_overdue(seen, right)) return overdue;
    if (overdue) return false;
    const PlannedJob* first = planned_of(seen, left);
    const PlannedJob* second = planned_of(seen, right);
    if (first == nullptr || second == nullptr) return false;
    if (first->spec.priority != second->spec.priority) {
      return first->spec.priority > second->spec.priority;
    }
    if (first->owner == second->owner) return left.submitted_unix_ms < right.submitted_unix_ms;
    return had_less(seen, left, right);
  }

  void note_paths(const Observed& seen, const JobRecord& job, const JobRecord& other) const {
    if (is_overdue(seen, job) && other.terms.priority > job.terms.priority) {
      seen.world.reached("an overdue job went before a higher priority");
    }
    if (job.terms.priority == other.terms.priority && had_less(seen, job, other)) {
      seen.world.reached("a job of who had less went first");
    }
  }

  PlainQueue queue_;
  std::map<JobId, Instant> waits_;
  std::set<std::string> has_run_;                   // owners
  std::map<std::string, std::int64_t> used_since_;  // by owner
};

}  // namespace

std::unique_ptr<Checker> make_hold_checker() { return std::make_unique<HoldChecker>(); }
std::unique_ptr<Checker> make_backfill_checker() { return std::make_unique<BackfillChecker>(); }
std::unique_ptr<Checker> make_turn_checker() { return std::make_unique<TurnChecker>(); }

}  // namespace tutti::simulation
