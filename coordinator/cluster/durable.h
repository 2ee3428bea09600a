// The durable state, and the one place that changes it: apply(fact).
//
// What may follow on what is checked here (I7): an illegal transition is a broken invariant and
// aborts, in a live coordinator as in a replay.
//
// Ownership: owned by ClusterState (through its Desk). `keys_`, `of_job_`, `of_worker_`,
// `draining_`, `ended_`, `ended_tasks_`, `counts_` and `queued_` are derived and not in a snapshot.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/cluster/cluster_facts.h"
#include "coordinator/cluster/cluster_records.h"
#include "coordinator/life/old_keys.h"

namespace tutti::coordinator {

inline constexpr std::size_t kRecoveriesMax = 100;
inline constexpr std::size_t kCheckpointsMax = 1'000;
inline constexpr std::size_t kBlamesMax = 20;
// Workers that a job stays away from because they could not start its program.
inline constexpr std::size_t kAvoidedMax = 8;
// Commits without an answer; what a rank says of an older one counts no more.
inline constexpr std::size_t kCommitsAskedMax = 64;
// So long after a failure the next one begins a new row.
inline constexpr std::int64_t kSteadyMs = 10 * 60 * 1000;
// After so long without any failure the infrastructure's count begins anew: a server of a year
// meets more than `retries.infrastructure` allows a bad day.
inline constexpr std::int64_t kForgivenMs = std::int64_t{24} * 60 * 60 * 1000;
// Keys of forgotten jobs, each for kKeyLifeMs after the submit (DESIGN jobs).
inline constexpr std::size_t kOldKeysMax = 100'000;
inline constexpr std::int64_t kKeyLifeMs = std::int64_t{7} * 24 * 60 * 60 * 1000;
inline constexpr std::size_t kUsersMax = 10'000;  // whose use is remembered
// Of an array's tasks, how many failures keep their message.
inline constexpr std::size_t kTaskMessagesMax = 100;

// Whether a job may go from one state to the other in one step; staying is not a transition.
bool is_legal(JobState from, JobState to);

// Whether two resolved specs are the same, when one of them is not kept any more.
std::uint64_t hash_of_spec(const std::string& yaml);

// What a snapshot has to say anew since the one before it: a cluster with 100,000 jobs in its queue
// changes a few of them at a time. Applied to the snapshot before, they make the one of now, byte
// for byte (I11).
struct SnapshotChanges {
  std::uint64_t next_job = 1;
  std::uint64_t next_process = 1;
  // New, or other than they were.
  std::vector<JobRecord> jobs = {};
  std::vector<ProcessRecord> processes = {};
  std::vector<WorkerRecord> workers = {};
  std::vector<UsageRecord> usage = {};
  // Not there any more; one that never was in a snapshot may be among them.
  std::vector<JobId> jobs_gone = {};
  std::vector<ProcessId> processes_gone = {};
  std::vector<std::string> workers_gone = {};
  std::vector<std::string> usage_gone = {};
  // Keys are a queue: so many of the oldest are gone, these come behind the others.
  std::uint64_t keys_gone = 0;
  std::vector<KeyRecord> keys = {};

  std::size_t size() const {
    return jobs.size() + processes.size() + workers.size() + usage.size() + jobs_gone.size() +
           processes_gone.size() + workers_gone.size() + usage_gone.size() + keys_gone +
           keys.size();
  }
};

void apply(const SnapshotChanges& changes, Snapshot& snapshot);

class Durable {
 public:
  void restore(const Snapshot& snapshot);
  Snapshot snapshot() const;

  void apply(const Fact& fact);

  // Since begin_changes() was called last (at first: since restore).
  SnapshotChanges changes() const;
  void begin_changes();

  // Jobs, but tasks, by kind and state; and since when the one that is queued longest is known,
  // UTC milliseconds, 0: none is.
  using Counts = std::map<std::pair<std::string, JobState>, std::uint64_t>;
  const Counts& counts() const { return counts_; }
  std::int64_t oldest_queued_unix_ms() const {
    return queued_.empty() ? 0 : queued_.begin()->first;
  }

  const std::map<JobId, JobRecord>& jobs() const { return jobs_; }
  const std::map<ProcessId, ProcessRecord>& processes() const { return processes_; }
  const std::map<std::string, WorkerRecord, std::less<>>& workers() const { return workers_; }
  // Ended jobs, but tasks, whose array remembers them.
  const std::set<JobId>& ended() const { return ended_; }
  std::uint64_t ended_tasks() const { return ended_tasks_; }  // of the arrays among them
  const std::map<std::string, UsageRecord>& usage() const { return usage_; }
  JobId next_job() const { return JobId{next_job_}; }
  ProcessId next_process() const { return ProcessId{next_process_}; }

  const JobRecord* job(JobId id) const;
  const ProcessRecord* process(ProcessId id) const;
  const WorkerRecord* worker(const std::string& name) const;
  // The job that this user submitted with this key, if there is one; it may have been forgotten
  // since.
  std::optional<KeyRecord> with_key(const std::string& owner, const std::string& key) const;
  // Of forgotten jobs: keys that are kept; and those that made room for others before kKeyLifeMs
  // was over, since this object was made.
  std::size_t keys_kept() const { return old_keys_.size(); }
  std::uint64_t keys_dropped_early() const { return keys_dropped_early_; }
  // Its processes, whatever their generation.
  const std::set<ProcessId>& processes_of(JobId id) const;
  // Those that hold a slot of the worker.
  const std::set<ProcessId>& processes_on(const std::string& worker) const;
  const std::set<std::string>& draining() const { return draining_; }

 private:
  void on(const WorkerJoined& fact);
  void on(const WorkerLost& fact);
  void on(const WorkerForgotten& fact);
  void on(const JobSubmitted& fact);
  void on(const JobWithdrawn& fact);
  void on(const GenerationStarted& fact);
  void on(const ProcessStarted& fact);
  void on(const GroupOrdered& fact);
  void on(const GroupRunning& fact);
  void on(const FirstStepSeen& fact);
  void on(const GenerationAborted& fact);
  void on(const ProcessStopOrdered& fact);
  void on(const ProcessEnded& fact);
  void on(const JobStopping& fact);
  void on(const JobSettled& fact);
  void on(const JobForgotten& fact);
  void on(const CheckpointPartTaken& fact);
  void on(const CheckpointTaken& fact);
  void on(const CheckpointDropped& fact);
  void on(const CommitOrdered& fact);
  void on(const FailureCounted& fact);
  void on(const NodeDraining& fact);
  void on(const NodeUndrained& fact);
  void on(const NodeBlamed& fact);
  void on(const JobReleasing& fact);
  void on(const ReleaseEnded& fact);
  void on(const TaskStarted& fact);
  void on(const TaskCancelled& fact);
  void on(const DependencyMet& fact);
  void on(const ProcessReturned& fact);
  void on(const StartRefused& fact);
  void on(const RefusalsForgotten& fact);
  void on(const NumbersPassed& fact);

  // For changing: what they give counts as changed.
  JobRecord& job_of(JobId id);
  JobRecord* find_job(JobId id);
  ProcessRecord& process_of(ProcessId id);
  WorkerRecord* find_worker(const std::string& name);
  void touch(const JobRecord& job);
  void touch_new(JobId job);
  void count_touched();
  void count(const JobRecord& job, int by);
  void count_all();
  void move(JobRecord& job, JobState to);
  void add_process(const JobRecord& job, Generation generation, std::uint32_t rank,
                   const Placement& place);
  void leave_gang(const ProcessRecord& process);
  void note_ended(const JobRecord& job);
  void remove_job(JobId id);
  void fold_task(const JobRecord& task);
  void cancel_waiting(JobRecord& array);
  void keep_key(const JobRecord& job);
  void drop_keys(std::int64_t now_unix_ms);
  // Its slots count as used until now; it goes on holding those it has, or has none from here on.
  enum class Holds { on, ends };
  void charge(JobRecord& job, std::int64_t unix_ms, Holds holds);

  struct Changed {
    std::set<JobId> jobs;
    std::set<ProcessId> processes;
    std::set<std::string> workers;
    std::set<std::string> users;
    std::uint64_t keys_before = 0;   // in the snapshot
    std::uint64_t keys_dropped = 0;  // of the front, since
  };

  std::map<JobId, JobRecord> jobs_;
  std::map<ProcessId, ProcessRecord> processes_;
  std::map<std::string, WorkerRecord, std::less<>> workers_;
  std::uint64_t next_job_ = 1;
  std::uint64_t next_process_ = 1;
  using OwnKey = std::pair<std::string, std::string>;  // owner, key
  std::map<OwnKey, JobId> keys_;
  std::map<JobId, std::set<ProcessId>> of_job_;
  std::set<JobId> ended_;
  std::uint64_t ended_tasks_ = 0;
  OldKeys old_keys_;
  std::uint64_t keys_dropped_early_ = 0;
  std::map<std::string, UsageRecord> usage_;
  std::map<std::string, std::set<ProcessId>> of_worker_;
  std::set<std::string> draining_;
  Changed changed_;
  std::set<JobId> at_work_;  // changed by the fact that is applied now
  Counts counts_;
  std::set<std::pair<std::int64_t, JobId>> queued_;  // since when, who
};

}  // namespace tutti::coordinator
