// What Durable keeps beside the live jobs: tasks of arrays, keys of forgotten jobs, users' use,
// what has changed since the last snapshot, and what it counts.
#include <algorithm>
#include <map>

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

// The records of `changed` among `all`; whoever is not there is gone.
template <class Key, class Record>
void sort_out(const std::set<Key>& changed, const auto& all, std::vector<Record>& kept,
              std::vector<Key>& gone) {
  for (const Key& key : changed) {
    const auto at = all.find(key);
    if (at == all.end()) {
      gone.push_back(key);
    } else {
      kept.push_back(at->second);
    }
  }
}

template <class Key, class Record>
void put_in(std::vector<Record>& records, const std::vector<Record>& changed,
            const std::vector<Key>& gone, auto key_of) {
  std::map<Key, Record> all;
  for (Record& record : records) all.emplace(key_of(record), std::move(record));
  for (const Record& record : changed) all.insert_or_assign(key_of(record), record);
  for (const Key& key : gone) all.erase(key);
  records.clear();
  for (auto& [key, record] : all) records.push_back(std::move(record));
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
  touch_new(task.job);
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
  JobRecord* const array = find_job(task.array);
  if (array == nullptr) return;
  ArrayTasks& tasks = array->tasks;
  const JobState state = task.state;
  set_state(tasks, task.index,
            state == JobState::done     ? kDone
            : state == JobState::failed ? kFailed
                                        : kCancelled);
  if (array->started_unix_ms == 0) array->started_unix_ms = task.started_unix_ms;
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
  JobRecord* const array = fact.proven ? find_job(job.array) : nullptr;
  if (array != nullptr) avoid(array->terms, fact.worker);
}

void Durable::on(const RefusalsForgotten& fact) {
  JobRecord& job = job_of(fact.job);
  job.terms.avoid.clear();
  job.refused_on.clear();
}

void Durable::on(const NumbersPassed& fact) {
  next_job_ = std::max(next_job_, fact.next_job);
  next_process_ = std::max(next_process_, fact.next_process);
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
  std::optional<KeyRecord> old = old_keys_.find(owner, key);
  // Whose it was is not known: it stays good for whoever knows it, rather than for nobody.
  return old ? old : old_keys_.find({}, key);
}

void Durable::keep_key(const JobRecord& job) {
  const auto at = keys_.find({job.owner, job.key});
  if (job.key.empty() || at == keys_.end() || at->second != job.job) return;
  old_keys_.push({.key = job.key,
                  .job = job.job,
                  .spec_hash = hash_of_spec(job.spec),
                  .unix_ms = job.submitted_unix_ms,
                  .owner = job.owner});
  if (old_keys_.size() <= kOldKeysMax) return;
  const std::size_t before = old_keys_.size();
  drop_keys(old_keys_.oldest_unix_ms() + kKeyLifeMs);
  keys_dropped_early_ += before - old_keys_.size();
}

void Durable::drop_keys(std::int64_t now_unix_ms) {
  while (!old_keys_.empty() && now_unix_ms - old_keys_.oldest_unix_ms() >= kKeyLifeMs) {
    old_keys_.pop_oldest();
    ++changed_.keys_dropped;
  }
}

// Use ---------------------------------------------------------------------------------------------

void Durable::charge(JobRecord& job, std::int64_t unix_ms, Holds holds) {
  if (unix_ms == 0) return;  // journalled by a version that did not count
  if (job.placed_unix_ms != 0 && unix_ms > job.placed_unix_ms) {
    UsageRecord& usage = usage_[job.owner];
    changed_.users.insert(job.owner);
    usage.owner = job.owner;
    scheduler::add_use(usage, scheduler::use_of_held(job.size, job.placed_unix_ms, unix_ms),
                       unix_ms);
    if (usage_.size() > kUsersMax) {
      const auto oldest =
          std::min_element(usage_.begin(), usage_.end(), [](auto& left, auto& right) {
            return left.second.as_of_unix_ms < right.second.as_of_unix_ms;
          });
      changed_.users.insert(oldest->first);
      usage_.erase(oldest);
    }
  }
  const bool held = job.placed_unix_ms != 0 || holds == Holds::on;
  job.placed_unix_ms = held && holds == Holds::on ? unix_ms : 0;
}

// Changes -----------------------------------------------------------------------------------------

void apply(const SnapshotChanges& changes, Snapshot& snapshot) {
  snapshot.next_job = changes.next_job;
  snapshot.next_process = changes.next_process;
  put_in(snapshot.jobs, changes.jobs, changes.jobs_gone, [](auto& each) { return each.job; });
  put_in(snapshot.processes, changes.processes, changes.processes_gone,
         [](auto& each) { return each.process; });
  put_in(snapshot.workers, changes.workers, changes.workers_gone,
         [](auto& each) { return each.worker; });
  put_in(snapshot.usage, changes.usage, changes.usage_gone, [](auto& each) { return each.owner; });
  TUTTI_ASSERT(changes.keys_gone <= snapshot.keys.size());
  snapshot.keys.erase(snapshot.keys.begin(),
                      snapshot.keys.begin() + static_cast<std::ptrdiff_t>(changes.keys_gone));
  snapshot.keys.insert(snapshot.keys.end(), changes.keys.begin(), changes.keys.end());
}

SnapshotChanges Durable::changes() const {
  SnapshotChanges out{.next_job = next_job_, .next_process = next_process_};
  sort_out(changed_.jobs, jobs_, out.jobs, out.jobs_gone);
  sort_out(changed_.processes, processes_, out.processes, out.processes_gone);
  sort_out(changed_.workers, workers_, out.workers, out.workers_gone);
  sort_out(changed_.users, usage_, out.usage, out.usage_gone);
  out.keys_gone = std::min(changed_.keys_dropped, changed_.keys_before);
  for (std::size_t i = changed_.keys_before - out.keys_gone; i < old_keys_.size(); ++i)
    out.keys.push_back(old_keys_.at(i));
  return out;
}

void Durable::begin_changes() {
  changed_ = {};
  changed_.keys_before = old_keys_.size();
}

// Before a job is changed or removed: it is counted again once the fact is applied.
void Durable::touch(const JobRecord& job) {
  if (!at_work_.insert(job.job).second) return;
  changed_.jobs.insert(job.job);
  count(job, -1);
}

void Durable::touch_new(JobId job) {
  at_work_.insert(job);
  changed_.jobs.insert(job);
}

void Durable::count_touched() {
  for (const JobId id : at_work_) {
    const auto at = jobs_.find(id);
    if (at != jobs_.end()) count(at->second, 1);
  }
  at_work_.clear();
}

// Tasks are their array's.
void Durable::count(const JobRecord& job, int by) {
  if (job.array) return;
  const auto at = counts_.try_emplace({job.terms.kind, job.state}).first;
  at->second += static_cast<std::uint64_t>(by);
  if (at->second == 0) counts_.erase(at);
  if (job.state != JobState::queued) return;
  if (by > 0) {
    queued_.emplace(job.submitted_unix_ms, job.job);
  } else {
    queued_.erase({job.submitted_unix_ms, job.job});
  }
}

void Durable::count_all() {
  counts_.clear();
  queued_.clear();
  for (const auto& [id, job] : jobs_) count(job, 1);
}

}  // namespace tutti::coordinator
