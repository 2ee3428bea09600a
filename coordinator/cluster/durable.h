// The durable state, and the one place that changes it: apply(fact).
//
// What may follow on what is checked here (I7): an illegal transition is a broken invariant and
// aborts, in a live coordinator as in a replay.
//
// Ownership: owned by ClusterState (through its Desk). `keys_`, `of_job_`, `of_worker_`,
// `draining_` and `ended_` are derived and not in a snapshot.
#pragma once

#include <cstddef>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "coordinator/cluster/cluster_facts.h"
#include "coordinator/cluster/cluster_records.h"

namespace tutti::coordinator {

inline constexpr std::size_t kRecoveriesMax = 100;
inline constexpr std::size_t kCheckpointsMax = 1'000;
inline constexpr std::size_t kBlamesMax = 20;
// So long after a failure the next one begins a new row.
inline constexpr std::int64_t kSteadyMs = 10 * 60 * 1000;

// Whether a job may go from one state to the other in one step; staying is not a transition.
bool is_legal(JobState from, JobState to);

class Durable {
 public:
  void restore(const Snapshot& snapshot);
  Snapshot snapshot() const;

  void apply(const Fact& fact);

  const std::map<JobId, JobRecord>& jobs() const { return jobs_; }
  const std::map<ProcessId, ProcessRecord>& processes() const { return processes_; }
  const std::map<std::string, WorkerRecord, std::less<>>& workers() const { return workers_; }
  std::size_t ended() const { return ended_; }
  JobId next_job() const { return JobId{next_job_}; }
  ProcessId next_process() const { return ProcessId{next_process_}; }

  const JobRecord* job(JobId id) const;
  const ProcessRecord* process(ProcessId id) const;
  const WorkerRecord* worker(const std::string& name) const;
  // The job submitted with this key, or none.
  JobId with_key(const std::string& key) const;
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
  void on(const FailureCounted& fact);
  void on(const NodeDraining& fact);
  void on(const NodeUndrained& fact);
  void on(const NodeBlamed& fact);
  void on(const JobReleasing& fact);
  void on(const ReleaseEnded& fact);

  JobRecord& job_of(JobId id);
  ProcessRecord& process_of(ProcessId id);
  void move(JobRecord& job, JobState to);
  void add_process(const JobRecord& job, Generation generation, std::uint32_t rank,
                   const Placement& place);
  void leave_gang(const ProcessRecord& process);
  void remove_job(JobId id);

  std::map<JobId, JobRecord> jobs_;
  std::map<ProcessId, ProcessRecord> processes_;
  std::map<std::string, WorkerRecord, std::less<>> workers_;
  std::uint64_t next_job_ = 1;
  std::uint64_t next_process_ = 1;
  std::map<std::string, JobId> keys_;
  std::map<JobId, std::set<ProcessId>> of_job_;
  std::map<std::string, std::set<ProcessId>> of_worker_;
  std::set<std::string> draining_;
  std::size_t ended_ = 0;
};

}  // namespace tutti::coordinator
