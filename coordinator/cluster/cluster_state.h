// The coordinator's decisions: who is a member, which gang runs where, how each job lives and ends.
//
//   Envelope -> on() -> Decision{facts, events, effects}
//
// Pure: no clock, no socket, no random source, no I/O. Membership, scheduling and job state decide
// together, because a placement is all three. The parts are files of their own (membership.cc,
// scheduler.cc, job_life.cc, recovery.cc, checkpoints.cc) around one Desk (desk.h); durable
// state is Durable (durable.h). What is not durable is derived again after a start: from the
// durable state (what is wanted) and each worker's Hello (what is).
//
// Start: `ClusterState state(settings); state.restore(snapshot); state.replay(fact)...;
// state.begin(...)`. From `begin` on, nobody is lost for one lease.
//
// Threads: one at a time. Limits: kQueuedJobsMax, kEndedJobsMax, kEndedTasksMax, kWorkersMax and
// those in desk.h.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "coordinator/cluster/cluster_messages.h"
#include "coordinator/cluster/cluster_views.h"
#include "coordinator/scheduler/quotas.h"

namespace tutti::coordinator {

struct SnapshotChanges;  // durable.h

inline constexpr std::size_t kQueuedJobsMax = 200'000;
// Tasks of arrays that have not had their turn, of all arrays together: a byte each.
inline constexpr std::size_t kQueuedTasksMax = 10'000'000;
inline constexpr std::size_t kEndedJobsMax = 10'000;
// Tasks of the arrays among them: a byte each, and some hundred of one that did not end well. The
// newest array is kept whatever it has.
inline constexpr std::uint64_t kEndedTasksMax = 200'000;
inline constexpr std::size_t kWorkersMax = 10'000;
inline constexpr std::size_t kRanksMax = 1'024;

struct ClusterSettings {
  std::string job_folders;  // a job's own is <job_folders>/ID
  std::string version;      // of Tutti; shown, mixed versions are allowed
  std::string join_token;
  bool faults = false;
  std::uint16_t liveness_port = 0;
  Duration lease = std::chrono::milliseconds(5'000);
  Duration heartbeat = std::chrono::milliseconds(500);
  // A worker whose liveness connection ended has this long to say Hello again.
  Duration disconnect_grace = std::chrono::milliseconds(300);
  // After a rank saw its group break, the death that caused it is usually reported within this
  // time; regrouping earlier would only build a group around a dead peer.
  Duration settle = std::chrono::milliseconds(200);
  Duration regroup_max = std::chrono::seconds(20);  // a survivor that is not ready by then is ended
  Duration start_max = std::chrono::seconds(60);    // the worker's limit, told in StartRank
  Duration form_max = std::chrono::seconds(120);    // connecting, copying, loading
  Duration checkpoint_max = std::chrono::minutes(10);
  Duration commit_max = std::chrono::seconds(30);  // then another rank is asked
  // A training rank whose (phase, step, collective) stands still for twenty times its longest pause
  // so far is hung, within these limits; for the upper one while it starts, loads or saves.
  Duration hang_min = std::chrono::seconds(30);
  Duration hang_max = std::chrono::minutes(10);
  Duration stop_grace = std::chrono::seconds(5);
  // Within this a job that is asked to leave (preempted, cancelled with --save) saves and stops.
  Duration notice = std::chrono::seconds(60);
  Duration drain = std::chrono::minutes(10);  // a drain without a deadline of its own
  // A worker that was set aside for being lost again and again takes work again after so long
  // without a loss.
  Duration steady = std::chrono::minutes(15);
  // A lost worker is not listed any more after this, and what it held is given up: should it come
  // back, its processes are strangers and are ended.
  Duration forget = std::chrono::hours(24);
  // A training job that could have more ranks is given them after it ran so long with what it has.
  Duration grow_after = std::chrono::seconds(30);
  scheduler::Quotas quotas = {};
  std::size_t ended_jobs_max = kEndedJobsMax;
  std::uint64_t ended_tasks_max = kEndedTasksMax;
};

class ClusterState {
 public:
  explicit ClusterState(ClusterSettings settings);
  ~ClusterState();
  ClusterState(const ClusterState&) = delete;
  ClusterState& operator=(const ClusterState&) = delete;

  // Recovery: the newest snapshot, then every later fact in order, and the number of the last
  // event.
  void restore(const Snapshot& snapshot);
  void replay(const Fact& fact);
  // Ends recovery. Its Decision is handled like every other. `left` is the greatest number of a job
  // that has something on disk.
  Decision begin(Instant now, WallTime wall, std::uint64_t last_event_seq, JobId left = {});

  Decision on(const Envelope& envelope);

  // When Tick is due next; nothing if there is nothing to wait for. Should nothing be handled until
  // well after that time, this coordinator was away itself, and blames nobody for its own absence.
  std::optional<Instant> next_due() const;

  // Whether tasks stand in line at workers (life/line.h).
  bool has_lines() const;

  Snapshot snapshot() const;
  // What a snapshot has to say anew since begin_changes() was called last, or since restore().
  SnapshotChanges changes() const;
  void begin_changes();
  // For metrics: kept, not looked for.
  const std::map<std::pair<std::string, JobState>, std::uint64_t>& job_counts() const;
  std::int64_t oldest_queued_unix_ms() const;

  // Whether `peer` speaks in the session that is its worker's current one.
  bool owns_session(std::string_view peer, SessionId session) const;
  // The durable record, for what the views do not show; null: not known (or forgotten).
  const JobRecord* find_job(JobId job) const;
  // Whether the job's logs and records are wanted: it is remembered, or is a task of an array that
  // is.
  bool knows(JobId job) const;
  JobId next_job() const;  // smaller ones were given out
  SoftSizes soft_sizes() const;
  // Workers that are members, or may come back.
  std::size_t worker_count() const;
  bool knows_worker(const std::string& name) const;
  // Of the job or task; empty: it is not known.
  std::string owner_of(JobId job) const;
  std::vector<JobSummary> jobs() const;  // by id; tasks are in their array's detail
  JobPage jobs(const JobFilter& filter) const;
  std::optional<JobDetail> job(JobId job) const;
  // Every task of an array, by index; empty if it is not one.
  std::vector<TaskView> tasks(JobId array) const;
  // By name, those after this one, at most so many.
  std::vector<NodeView> nodes(const std::string& after = {}, std::size_t limit = SIZE_MAX) const;
  // Why the job is where it is: position, what is missing, who holds it, the earliest start.
  std::optional<Explanation> explain(JobId job) const;
  // What would become of such a job of this user. Errors: those of a submit.
  Result<Explanation> plan(const std::string& owner, const spec::JobSpec& spec) const;
  ClusterCounters counters() const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace tutti::coordinator
