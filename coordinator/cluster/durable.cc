#include "coordinator/cluster/durable.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "coordinator/membership/numerics_profile.h"
#include "protocol/base/assert.h"

namespace tutti::coordinator {

bool is_legal(JobState from, JobState to) {
  using enum JobState;
  switch (from) {
    case queued: return to == placed || to == failed || to == cancelled;
    case placed: return to == starting || to == stopping || to == queued;
    case starting: return to == running || to == stopping || to == queued;
    case running: return to == recovering || to == stopping;
    case recovering: return to == running || to == stopping;
    case stopping: return to == queued || is_terminal(to);
    case done:
    case failed:
    case cancelled: return false;
  }
  return false;
}

void Durable::restore(const Snapshot& snapshot) {
  next_job_ = snapshot.next_job;
  next_process_ = snapshot.next_process;
  jobs_.clear();
  processes_.clear();
  workers_.clear();
  keys_.clear();
  of_job_.clear();
  of_worker_.clear();
  draining_.clear();
  ended_.clear();
  ended_tasks_ = 0;
  old_keys_.clear();
  usage_.clear();
  std::set<JobId> amended;
  for (const JobRecord& job : snapshot.jobs) {
    if (is_terminal(job.state) && !job.array) note_ended(job);
    if (!job.key.empty()) keys_[{job.owner, job.key}] = job.job;
    JobRecord& kept = jobs_.emplace(job.job, job).first->second;
    // Written by a version that did not count what a job had run.
    if (job.formed && job.running_unix_ms == 0) {
      kept.running_unix_ms = job.started_unix_ms;
      amended.insert(job.job);
    }
  }
  for (const ProcessRecord& process : snapshot.processes) {
    processes_.emplace(process.process, process);
    of_job_[process.job].insert(process.process);
    of_worker_[process.worker].insert(process.process);
  }
  for (const WorkerRecord& worker : snapshot.workers) {
    workers_.emplace(worker.worker, worker);
    if (worker.draining()) draining_.insert(worker.worker);
  }
  for (const KeyRecord& key : snapshot.keys) old_keys_.push(key);
  for (const UsageRecord& usage : snapshot.usage) usage_.emplace(usage.owner, usage);
  count_all();
  begin_changes();
  changed_.jobs = std::move(amended);
}

Snapshot Durable::snapshot() const {
  Snapshot out{.next_job = next_job_,
               .next_process = next_process_,
               .jobs = {},
               .processes = {},
               .workers = {},
               .keys = {},
               .usage = {}};
  for (const auto& [id, job] : jobs_) out.jobs.push_back(job);
  for (const auto& [id, process] : processes_) out.processes.push_back(process);
  for (const auto& [name, worker] : workers_) out.workers.push_back(worker);
  for (std::size_t i = 0; i < old_keys_.size(); ++i) out.keys.push_back(old_keys_.at(i));
  for (const auto& [owner, usage] : usage_) out.usage.push_back(usage);
  return out;
}

void Durable::apply(const Fact& fact) {
  std::visit([this](const auto& each) { on(each); }, fact);
  count_touched();
}

const JobRecord* Durable::job(JobId id) const {
  const auto at = jobs_.find(id);
  return at == jobs_.end() ? nullptr : &at->second;
}

const ProcessRecord* Durable::process(ProcessId id) const {
  const auto at = processes_.find(id);
  return at == processes_.end() ? nullptr : &at->second;
}

const WorkerRecord* Durable::worker(const std::string& name) const {
  const auto at = workers_.find(name);
  return at == workers_.end() ? nullptr : &at->second;
}

const std::set<ProcessId>& Durable::processes_of(JobId id) const {
  static const std::set<ProcessId> none;
  const auto at = of_job_.find(id);
  return at == of_job_.end() ? none : at->second;
}

const std::set<ProcessId>& Durable::processes_on(const std::string& worker) const {
  static const std::set<ProcessId> none;
  const auto at = of_worker_.find(worker);
  return at == of_worker_.end() ? none : at->second;
}

JobRecord* Durable::find_job(JobId id) {
  const auto at = jobs_.find(id);
  if (at == jobs_.end()) return nullptr;
  touch(at->second);
  return &at->second;
}

JobRecord& Durable::job_of(JobId id) {
  JobRecord* const job = find_job(id);
  TUTTI_ASSERT(job != nullptr);
  return *job;
}

WorkerRecord* Durable::find_worker(const std::string& name) {
  const auto at = workers_.find(name);
  if (at == workers_.end()) return nullptr;
  changed_.workers.insert(name);
  return &at->second;
}

ProcessRecord& Durable::process_of(ProcessId id) {
  const auto at = processes_.find(id);
  TUTTI_ASSERT(at != processes_.end());
  changed_.processes.insert(id);
  return at->second;
}

void Durable::move(JobRecord& job, JobState to) {
  if (job.state == to) return;
  TUTTI_ASSERT(is_legal(job.state, to));
  job.state = to;
}

void Durable::leave_gang(const ProcessRecord& process) {
  JobRecord* const job = find_job(process.job);
  if (job == nullptr) return;
  std::replace(job->members.begin(), job->members.end(), process.process, ProcessId{});
}

void Durable::note_ended(const JobRecord& job) {
  if (ended_.insert(job.job).second) ended_tasks_ += job.terms.array_count;
}

void Durable::remove_job(JobId id) {
  const JobRecord& job = job_of(id);
  if (ended_.erase(id) != 0) ended_tasks_ -= job.terms.array_count;
  const auto key = keys_.find({job.owner, job.key});
  if (key != keys_.end() && key->second == id) keys_.erase(key);
  jobs_.erase(id);
}

// Workers
// -------------------------------------------------------------------------------------------

void Durable::on(const WorkerJoined& fact) {
  changed_.workers.insert(fact.worker.worker);
  workers_[fact.worker.worker] = fact.worker;
  if (!fact.worker.draining()) draining_.erase(fact.worker.worker);
}

void Durable::on(const WorkerLost& fact) {
  WorkerRecord* const worker = find_worker(fact.worker);
  TUTTI_ASSERT(worker != nullptr);
  worker->lost = true;
  worker->lost_unix_ms = fact.unix_ms;
  for (const ProcessId id : processes_on(fact.worker)) {
    ProcessRecord& process = process_of(id);
    if (process.lost) continue;
    process.lost = true;
    leave_gang(process);
  }
}

void Durable::on(const ProcessReturned& fact) {
  ProcessRecord& process = process_of(fact.process);
  JobRecord& job = job_of(process.job);
  TUTTI_ASSERT(process.lost && !job.generation_alive);
  TUTTI_ASSERT(process.rank < job.members.size() && !job.members[process.rank]);
  process.lost = false;
  job.members[process.rank] = fact.process;
}

void Durable::on(const NodeDraining& fact) {
  WorkerRecord* const worker = find_worker(fact.worker);
  TUTTI_ASSERT(worker != nullptr);
  worker->drain = fact.drain;
  draining_.insert(fact.worker);
}

void Durable::on(const NodeUndrained& fact) {
  WorkerRecord* const worker = find_worker(fact.worker);
  TUTTI_ASSERT(worker != nullptr);
  worker->drain = {};
  if (!fact.keeps_blames) worker->blames.clear();
  draining_.erase(fact.worker);
}

void Durable::on(const NodeBlamed& fact) {
  WorkerRecord* const worker = find_worker(fact.worker);
  if (worker == nullptr) return;
  std::vector<NodeBlame>& blames = worker->blames;
  if (blames.size() == kBlamesMax) blames.erase(blames.begin());
  blames.push_back(fact.blame);
}

void Durable::on(const WorkerForgotten& fact) {
  changed_.workers.insert(fact.worker);
  workers_.erase(fact.worker);
  draining_.erase(fact.worker);
}

// Jobs
// ----------------------------------------------------------------------------------------------

void Durable::on(const JobSubmitted& fact) {
  next_job_ = std::max(next_job_, fact.job.value + 1 + fact.terms.array_count);
  drop_keys(fact.unix_ms);
  JobRecord job;
  job.job = fact.job;
  job.key = fact.key;
  job.owner = fact.owner;
  job.spec = fact.spec;
  job.folder = fact.folder;
  job.terms = fact.terms;
  job.submitted_unix_ms = fact.unix_ms;
  job.queued_unix_ms = fact.unix_ms;
  job.dependencies = fact.terms.after;
  job.tasks.states.assign(fact.terms.array_count, 'w');
  job.tasks.waiting = fact.terms.array_count;
  if (!job.key.empty()) keys_[{job.owner, job.key}] = job.job;
  touch_new(job.job);
  TUTTI_ASSERT(jobs_.emplace(job.job, std::move(job)).second);
}

void Durable::on(const JobWithdrawn& fact) { remove_job(fact.job); }

namespace {

// The recovery that goes on, or none. A program's gang goes through the queue meanwhile.
Recovery* open_recovery(JobRecord& job) {
  if (job.recoveries.empty()) return nullptr;
  Recovery& last = job.recoveries.back();
  const bool is_open =
      job.terms.kind == "run" ? last.copied_ms < 0 : job.state == JobState::recovering;
  return is_open ? &last : nullptr;
}

std::int64_t since_seen(const Recovery& recovery, std::int64_t unix_ms) {
  return std::max<std::int64_t>(0, unix_ms - recovery.seen_unix_ms);
}

}  // namespace

void Durable::on(const GenerationStarted& fact) {
  JobRecord& job = job_of(fact.job);
  TUTTI_ASSERT(fact.generation.value == job.generation.value + 1);
  TUTTI_ASSERT(!job.generation_alive && !is_terminal(job.state));
  charge(job, fact.unix_ms, Holds::on);
  if (job.state == JobState::queued) move(job, JobState::placed);
  job.generation = fact.generation;
  job.generation_alive = true;
  job.formed = false;
  job.failure_counted = false;
  job.ranks_done = 0;
  job.dropped_step = 0;
  job.formation = {};
  if (fact.generation.value > 1) ++job.restarts;
  if (Recovery* const recovery = open_recovery(job)) {
    recovery->decided_ms = since_seen(*recovery, fact.unix_ms);
    // Programs that begin at once have no order to form.
    if (job.terms.kind == "run") recovery->generation = fact.generation;
  }
  if (job.release.to == ReleaseTo::resize) {
    ++job.resizes;
    if (job.release.cause == ReleaseCause::moved) ++job.drains;
    job.release = {};
  }
  if (job.terms.kind == "train" && job.terms.profile.empty() && !fact.gang.empty()) {
    std::vector<std::vector<std::string>> each;
    for (const Placement& place : fact.gang) {
      const WorkerRecord* const of = worker(place.worker);
      each.push_back(of == nullptr ? std::vector<std::string>{} : of->profiles);
    }
    job.terms.profile = profile_for(each, job.terms.precision);
  }
  job.members.clear();
  job.homes.clear();
  job.size = static_cast<std::uint32_t>(fact.gang.size());
  for (std::uint32_t rank = 0; rank < fact.gang.size(); ++rank) {
    const Placement& place = fact.gang[rank];
    job.members.push_back(place.process);
    job.homes.push_back(place.worker);
    if (place.survivor) {
      process_of(place.process).rank = rank;
      continue;
    }
    add_process(job, fact.generation, rank, place);
  }
}

void Durable::add_process(const JobRecord& job, Generation generation, std::uint32_t rank,
                          const Placement& place) {
  next_process_ = std::max(next_process_, place.process.value + 1);
  ProcessRecord process;
  process.process = place.process;
  process.job = job.job;
  process.generation = generation;
  process.rank = rank;
  process.worker = place.worker;
  process.incarnation = place.incarnation;
  process.slot = place.slot;
  process.lined_up = place.lined_up;
  of_job_[job.job].insert(place.process);
  of_worker_[place.worker].insert(place.process);
  changed_.processes.insert(place.process);
  TUTTI_ASSERT(processes_.emplace(place.process, std::move(process)).second);
}

void Durable::on(const ProcessStarted& fact) {
  ProcessRecord& process = process_of(fact.process);
  process.pid = fact.pid;
  JobRecord* const job = find_job(process.job);
  if (job != nullptr && job->state == JobState::placed) move(*job, JobState::starting);
}

void Durable::on(const GroupOrdered& fact) {
  JobRecord& job = job_of(fact.job);
  TUTTI_ASSERT(job.generation == fact.generation && job.generation_alive);
  TUTTI_ASSERT(std::find(job.members.begin(), job.members.end(), ProcessId{}) == job.members.end());
  if (job.state == JobState::placed) move(job, JobState::starting);
  job.formation = fact.formation;
  Recovery* const recovery = open_recovery(job);
  if (recovery == nullptr) return;
  recovery->generation = fact.generation;
  // Of programs it is known: nothing is left of the old gang once the job is queued.
  if (job.terms.kind != "run") recovery->aborted_ms = since_seen(*recovery, fact.aborted_unix_ms);
  recovery->regrouped_ms = std::max(recovery->aborted_ms, fact.unix_ms - recovery->seen_unix_ms);
  recovery->from_step = fact.formation.base_step;
  recovery->lost_steps = fact.lost_steps;
}

void Durable::on(const GroupRunning& fact) {
  JobRecord& job = job_of(fact.job);
  TUTTI_ASSERT(job.generation == fact.generation && job.generation_alive);
  if (Recovery* const recovery = open_recovery(job)) {
    recovery->copied_ms =
        std::max({std::int64_t{0}, recovery->regrouped_ms, fact.unix_ms - recovery->seen_unix_ms});
  }
  job.formed = true;
  // Who stood in line held nothing until now.
  for (const ProcessId id : processes_of(job.job)) {
    if (process_of(id).lined_up) job.placed_unix_ms = fact.unix_ms;
  }
  if (fact.fell_back) {
    std::erase_if(job.checkpoints,
                  [&](const CommittedCheckpoint& each) { return each.step > fact.step; });
    if (!job.recoveries.empty() && job.state == JobState::recovering) {
      Recovery& recovery = job.recoveries.back();
      recovery.lost_steps += job.formation.base_step - fact.step;
      recovery.from_step = fact.step;
    }
    job.formation.base_step = fact.step;
  }
  if (job.started_unix_ms == 0) job.started_unix_ms = fact.unix_ms;
  if (job.running_unix_ms == 0) job.running_unix_ms = fact.unix_ms;
  // One holder alone, that only saves, is not the gang at work (I4).
  if (job.members.size() >= job.terms.ranks_min) move(job, JobState::running);
}

void Durable::on(const FirstStepSeen& fact) {
  JobRecord& job = job_of(fact.job);
  job.step = std::max(job.step, fact.step);
  if (job.recoveries.empty()) return;
  Recovery& recovery = job.recoveries.back();
  if (recovery.generation == fact.generation && recovery.first_step_ms < 0) {
    recovery.first_step_ms = std::max(recovery.copied_ms, fact.unix_ms - recovery.seen_unix_ms);
  }
}

void Durable::on(const GenerationAborted& fact) {
  JobRecord& job = job_of(fact.job);
  TUTTI_ASSERT(job.generation == fact.generation && job.generation_alive);
  job.generation_alive = false;
  job.formed = false;
  job.formation = {};
  job.step = std::max(job.step, fact.step);
  job.failure_counted = job.failure_counted || fact.planned;
  if (!job.open_checkpoint.whole()) job.open_checkpoint = {};
  // A failure during a recovery is part of it: the first cause stays, its clock goes on.
  if (Recovery* const recovery = open_recovery(job)) {
    recovery->aborted_ms = recovery->regrouped_ms = recovery->copied_ms = recovery->decided_ms = -1;
    return;
  }
  if (job.state != JobState::running && job.state != JobState::recovering) return;
  move(job, JobState::recovering);
  if (job.recoveries.size() == kRecoveriesMax) job.recoveries.erase(job.recoveries.begin());
  Recovery recovery;
  recovery.generation = fact.generation;
  recovery.cause = fact.cause;
  recovery.seen_unix_ms = fact.unix_ms;
  recovery.planned = fact.planned;
  job.recoveries.push_back(std::move(recovery));
}

void Durable::on(const FailureCounted& fact) {
  JobRecord& job = job_of(fact.job);
  job.failure_counted = true;
  const bool steady =
      fact.step > job.failure_step || fact.unix_ms - job.failure_unix_ms >= kSteadyMs;
  const bool forgiven = fact.unix_ms - job.failure_unix_ms >= kForgivenMs;
  job.failures_in_row = steady ? 1 : job.failures_in_row + 1;
  // A server has no steps: work since its last failure is what tells one fault from three.
  const bool same_place = fact.step == job.own_step && (job.terms.kind == "train" || !steady);
  job.failure_step = std::max(job.failure_step, fact.step);
  job.failure_unix_ms = fact.unix_ms;
  switch (fact.failure) {
    case wire::FailureClass::none: break;
    case wire::FailureClass::user: ++job.failures_user; break;
    case wire::FailureClass::infrastructure:
      job.failures_infrastructure = forgiven ? 1 : job.failures_infrastructure + 1;
      break;
    case wire::FailureClass::own:
      job.failures_own_here = same_place ? job.failures_own_here + 1 : 1;
      job.own_step = fact.step;
      break;
  }
}

void Durable::on(const JobStopping& fact) {
  JobRecord& job = job_of(fact.job);
  cancel_waiting(job);
  move(job, JobState::stopping);
  job.outcome = fact.outcome;
  job.generation_alive = false;
  job.formed = false;
  job.formation = {};
  if (!job.open_checkpoint.whole()) job.open_checkpoint = {};
}

void Durable::on(const JobSettled& fact) {
  JobRecord& job = job_of(fact.job);
  charge(job, fact.unix_ms, Holds::ends);
  move(job, fact.outcome.state);
  job.outcome = fact.outcome;
  job.step = std::max(job.step, fact.step);
  job.generation_alive = false;
  job.formed = false;
  job.formation = {};
  job.members.clear();
  job.ranks_done = 0;
  job.queued_unix_ms = fact.unix_ms;
  if (job.running_unix_ms != 0) {
    job.ran_ms += static_cast<std::uint64_t>(
        std::max<std::int64_t>(0, fact.unix_ms - std::exchange(job.running_unix_ms, 0)));
  }
  const ReleaseRecord release = std::exchange(job.release, {});
  if (!is_terminal(job.state)) {
    Recovery* const recovery = open_recovery(job);
    if (recovery != nullptr && recovery->aborted_ms < 0)
      recovery->aborted_ms = since_seen(*recovery, fact.unix_ms);
    // What ended otherwise meanwhile is charged to whom it belongs, and to nobody else (I8).
    if (release.to != ReleaseTo::queue || fact.outcome.failure != wire::FailureClass::none) return;
    if (release.cause == ReleaseCause::preempted) ++job.preemptions;
    if (release.cause == ReleaseCause::drained) ++job.drains;
    return;
  }
  job.ended_unix_ms = fact.unix_ms;
  job.open_checkpoint = {};
  job.commits_asked.clear();
  job.homes.clear();
  job.dependencies.clear();
  cancel_waiting(job);
  if (!job.array) note_ended(job);
}

void Durable::on(const JobForgotten& fact) {
  const JobRecord& job = job_of(fact.job);
  if (job.array) fold_task(job);
  keep_key(job);
  remove_job(fact.job);
}

void Durable::on(const JobReleasing& fact) {
  JobRecord& job = job_of(fact.job);
  TUTTI_ASSERT(!is_terminal(job.state));
  job.release = fact.release;
  for (const Placement& place : fact.newcomers) {
    const auto at = std::find(job.release.next.begin(), job.release.next.end(), place.process);
    TUTTI_ASSERT(at != job.release.next.end());
    add_process(job, Generation{job.generation.value + 1},
                static_cast<std::uint32_t>(at - job.release.next.begin()), place);
  }
}

void Durable::on(const ReleaseEnded& fact) { job_of(fact.job).release = {}; }

// Processes
// -----------------------------------------------------------------------------------------

void Durable::on(const ProcessStopOrdered& fact) {
  ProcessRecord& process = process_of(fact.process);
  process.ordered_to_stop = true;
  leave_gang(process);
}

void Durable::on(const ProcessEnded& fact) {
  const ProcessRecord& process = process_of(fact.process);
  if (JobRecord* const of = find_job(process.job)) {
    JobRecord& job = *of;
    job.memory_peak_bytes = std::max(job.memory_peak_bytes, fact.memory_peak_bytes);
    job.cpu_ms += fact.cpu_ms;
    const bool member =
        std::find(job.members.begin(), job.members.end(), fact.process) != job.members.end();
    if (member && !job.formation.addresses.empty() && job.terms.kind == "run" && fact.code == 0 &&
        fact.signal == 0 && fact.error.empty()) {
      ++job.ranks_done;
    }
  }
  leave_gang(process);
  const auto own = of_job_.find(process.job);
  own->second.erase(fact.process);
  if (own->second.empty()) of_job_.erase(own);
  const auto beside = of_worker_.find(process.worker);
  beside->second.erase(fact.process);
  if (beside->second.empty()) of_worker_.erase(beside);
  processes_.erase(fact.process);
}

// Checkpoints
// ---------------------------------------------------------------------------------------

void Durable::on(const CheckpointPartTaken& fact) {
  JobRecord& job = job_of(fact.job);
  OpenCheckpoint& open = job.open_checkpoint;
  if (open.step != fact.step || open.generation != fact.generation) {
    open = {.step = fact.step, .generation = fact.generation, .size = job.size, .parts = {}};
  }
  open.parts.push_back(fact.part);
}

void Durable::on(const CheckpointTaken& fact) {
  JobRecord& job = job_of(fact.job);
  if (job.open_checkpoint.step == fact.step) job.open_checkpoint = {};
  job.step = std::max(job.step, fact.step);
  job.checkpoints.push_back({.step = fact.step, .folder = fact.folder});
  std::erase_if(job.commits_asked, [&](std::uint64_t step) { return step <= fact.step; });
  std::size_t kept = job.terms.checkpoints_kept;
  if (kept == 0 || kept > kCheckpointsMax) kept = kCheckpointsMax;
  if (job.checkpoints.size() > kept) {
    job.checkpoints.erase(job.checkpoints.begin(),
                          job.checkpoints.end() - static_cast<std::ptrdiff_t>(kept));
  }
}

void Durable::on(const CheckpointDropped& fact) {
  JobRecord& job = job_of(fact.job);
  if (job.open_checkpoint.step == fact.step) job.open_checkpoint = {};
  job.dropped_step = std::max(job.dropped_step, fact.step);
}

void Durable::on(const CommitOrdered& fact) {
  std::vector<std::uint64_t>& asked = job_of(fact.job).commits_asked;
  if (asked.size() == kCommitsAskedMax) asked.erase(asked.begin());
  asked.push_back(fact.step);
}

}  // namespace tutti::coordinator
