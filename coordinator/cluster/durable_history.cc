// What Durable keeps beside the live jobs: tasks of arrays, keys of forgotten jobs, users' use.
#include <algorithm>

#include "coordinator/cluster/durable.h"
#include "coordinator/scheduler/fair_share.h"
#include "protocol/base/assert.h"

namespace tutti::coordinator {

namespace {

constexpr char kWaiting = 'w';
constexpr char kActive = 'a';
constexpr char kDone = 'd';
constexpr char kFailed = 'f';
constexpr char kCancelled = 'c';

std::uint32_t& count_of(ArrayTasks& tasks, char state) {
  switch (state) {
    case kActive: return tasks.active;
    case kDone: return tasks.done;
    case kFailed: return tasks.failed;
    case kCancelled: return tasks.cancelled;
    default: return tasks.waiting;
  }
}

void set_state(ArrayTasks& tasks, std::uint32_t index, char to) {
  TUTTI_ASSERT(index < tasks.states.size());
  --count_of(tasks, tasks.states[index]);
  tasks.states[index] = to;
  ++count_of(tasks, to);
  while (tasks.next < tasks.states.size() && tasks.states[tasks.next] != kWaiting) ++tasks.next;
}

void keep_end(ArrayTasks& tasks, TaskEnd end) {
  if (tasks.ends.size() >= kTaskMessagesMax) end.message.clear();
  tasks.ends.push_back(std::move(end));
}

}  // namespace

// FNV-1a.
std::uint64_t hash_of_spec(const std::string& yaml) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char byte : yaml) {
    hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001b3;
  }
  return hash;
}

// Arrays ------------------------------------------------------------------------------------------

void Durable::on(const TaskStarted& fact) {
  JobRecord& array = job_of(fact.array);
  TUTTI_ASSERT(!is_terminal(array.state) && array.state != JobState::stopping);
  TUTTI_ASSERT(fact.index < array.tasks.states.size() &&
               array.tasks.states[fact.index] == kWaiting);
  TUTTI_ASSERT(fact.job.value == array.job.value + 1 + fact.index);
  set_state(array.tasks, fact.index, kActive);
  // An array has no processes of its own; it runs from its first task to its last.
  array.state = JobState::running;
  JobRecord task;
  task.job = fact.job;
  task.owner = array.owner;
  task.spec = array.spec;
  task.folder = array.folder + "/" + std::to_string(fact.index);
  task.terms = array.terms;
  task.terms.name += "." + std::to_string(fact.index);
  task.terms.array_count = 0;
  task.terms.array_at_once = 0;
  task.terms.after.clear();
  task.terms.begin_unix_ms = 0;
  task.terms.queued_ms_max = 0;
  task.submitted_unix_ms = array.submitted_unix_ms;
  task.queued_unix_ms = array.queued_unix_ms;
  task.array = fact.array;
  task.index = fact.index;
  TUTTI_ASSERT(jobs_.emplace(task.job, std::move(task)).second);
}

void Durable::on(const TaskCancelled& fact) {
  JobRecord& array = job_of(fact.job);
  TUTTI_ASSERT(fact.index < array.tasks.states.size() &&
               array.tasks.states[fact.index] == kWaiting);
  set_state(array.tasks, fact.index, kCancelled);
  keep_end(array.tasks, {.index = fact.index,
                         .exit_code = 1,
                         .failure = wire::FailureClass::none,
                         .message = fact.message});
}

void Durable::fold_task(const JobRecord& task) {
  const auto at = jobs_.find(task.array);
  if (at == jobs_.end()) return;
  ArrayTasks& tasks = at->second.tasks;
  const JobState state = task.state;
  set_state(tasks, task.index,
            state == JobState::done     ? kDone
            : state == JobState::failed ? kFailed
                                        : kCancelled);
  if (at->second.started_unix_ms == 0) at->second.started_unix_ms = task.started_unix_ms;
  if (state == JobState::done) return;
  keep_end(tasks, {.index = task.index,
                   .exit_code = task.outcome.exit_code,
                   .failure = task.outcome.failure,
                   .message = task.outcome.message,
                   .code = task.outcome.code,
                   .signal = task.outcome.signal});
}

void Durable::cancel_waiting(JobRecord& array) {
  ArrayTasks& tasks = array.tasks;
  if (tasks.waiting == 0) return;
  std::replace(tasks.states.begin(), tasks.states.end(), kWaiting, kCancelled);
  tasks.cancelled += tasks.waiting;
  tasks.waiting = 0;
  tasks.next = static_cast<std::uint32_t>(tasks.states.size());
}

// Refused starts ----------------------------------------------------------------------------------

namespace {

void avoid(JobTerms& terms, const std::string& worker) {
  const auto at = std::lower_bound(terms.avoid.begin(), terms.avoid.end(), worker);
  if (terms.avoid.size() == kAvoidedMax || (at != terms.avoid.end() && *at == worker)) return;
  terms.avoid.insert(at, worker);
}

}  // namespace

void Durable::on(const StartRefused& fact) {
  JobRecord& job = job_of(fact.job);
  avoid(job.terms, fact.worker);
  job.refused_on = fact.proven ? std::string() : fact.worker;
  const auto array = jobs_.find(job.array);
  if (fact.proven && array != jobs_.end()) avoid(array->second.terms, fact.worker);
}

void Durable::on(const RefusalsForgotten& fact) {
  JobRecord& job = job_of(fact.job);
  job.terms.avoid.clear();
  job.refused_on.clear();
}

// Dependencies ------------------------------------------------------------------------------------

void Durable::on(const DependencyMet& fact) {
  JobRecord& job = job_of(fact.job);
  job.queued_unix_ms = std::max(job.queued_unix_ms, fact.unix_ms);
  std::erase_if(job.dependencies, [&](const Dependency& each) { return each.job == fact.on; });
}

// Keys --------------------------------------------------------------------------------------------

std::optional<KeyRecord> Durable::with_key(const std::string& owner, const std::string& key) const {
  const auto at = keys_.find({owner, key});
  if (at != keys_.end()) {
    const JobRecord& job = jobs_.at(at->second);
    return KeyRecord{.key = key,
                     .job = job.job,
                     .spec_hash = hash_of_spec(job.spec),
                     .unix_ms = job.submitted_unix_ms,
                     .owner = owner};
  }
  auto old = old_key_.find({owner, key});
  // Whose it was is not known: it stays good for whoever knows it, rather than for nobody.
  if (old == old_key_.end()) old = old_key_.find({std::string(), key});
  return old == old_key_.end() ? std::nullopt : std::optional(old->second);
}

void Durable::keep_key(const JobRecord& job) {
  const auto at = keys_.find({job.owner, job.key});
  if (job.key.empty() || at == keys_.end() || at->second != job.job) return;
  KeyRecord kept{.key = job.key,
                 .job = job.job,
                 .spec_hash = hash_of_spec(job.spec),
                 .unix_ms = job.submitted_unix_ms,
                 .owner = job.owner};
  old_key_[{job.owner, job.key}] = kept;
  old_keys_.push_back(std::move(kept));
  if (old_keys_.size() <= kOldKeysMax) return;
  const std::size_t before = old_keys_.size();
  drop_keys(old_keys_.front().unix_ms + kKeyLifeMs);
  keys_dropped_early_ += before - old_keys_.size();
}

void Durable::drop_keys(std::int64_t now_unix_ms) {
  while (!old_keys_.empty() && now_unix_ms - old_keys_.front().unix_ms >= kKeyLifeMs) {
    const auto at = old_key_.find({old_keys_.front().owner, old_keys_.front().key});
    if (at != old_key_.end() && at->second.job == old_keys_.front().job) old_key_.erase(at);
    old_keys_.pop_front();
  }
}

// Use ---------------------------------------------------------------------------------------------

void Durable::charge(JobRecord& job, std::int64_t unix_ms, Holds holds) {
  if (unix_ms == 0) return;  // journalled by a version that did not count
  if (job.placed_unix_ms != 0 && unix_ms > job.placed_unix_ms) {
    UsageRecord& usage = usage_[job.owner];
    usage.owner = job.owner;
    const auto held_ms = static_cast<std::uint64_t>(unix_ms - job.placed_unix_ms);
    scheduler::add_use(usage, held_ms * job.size, unix_ms);
    if (usage_.size() > kUsersMax) {
      usage_.erase(std::min_element(usage_.begin(), usage_.end(), [](auto& left, auto& right) {
        return left.second.as_of_unix_ms < right.second.as_of_unix_ms;
      }));
    }
  }
  const bool held = job.placed_unix_ms != 0 || holds == Holds::on;
  job.placed_unix_ms = held && holds == Holds::on ? unix_ms : 0;
}

}  // namespace tutti::coordinator
