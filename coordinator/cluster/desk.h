// What the parts of the coordinator's state machine share: durable and soft state, the time, and
// the decision that is being made.
//
// Handlers change durable state only by record(fact), remember soft state in the structs below, and
// mark the jobs that they touched; ClusterState then lets every touched job advance until nothing
// changes any more (job_life.h), schedules (scheduler.h), and derives the orders (orders.h). So it
// does not matter in which order reports arrive, or whether a state was reached by a report, by a
// Hello or by a replay.
//
// Soft state is lost with the coordinator and comes back from each worker's Hello.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/cluster/cluster_messages.h"
#include "coordinator/cluster/cluster_state.h"
#include "coordinator/cluster/due_index.h"
#include "coordinator/cluster/durable.h"
#include "coordinator/scheduler/board.h"
#include "protocol/wire/sequencer.h"

namespace tutti::coordinator {

// One worker, as far as it can be forgotten.
struct WorkerLink {
  std::string worker;
  bool open = false;  // it has a session with this coordinator
  std::string peer;
  SessionId session;
  std::uint64_t greeting = 0;  // of the Hello that opened the session
  wire::SendQueue<wire::ToWorker> orders;
  wire::ReceiveGate reports;
  bool reports_owed = false;  // an acknowledgement is due
  // Reports that its Hello announced: what it says of processes is complete once they are here.
  std::uint64_t reports_announced = 0;
  Instant heard;  // last sign of life; the start of this coordinator if there was none
  std::optional<Instant> disconnected;  // the liveness connection ended
  Duration heartbeat{0};                // how often it was asked to say that it lives
  std::optional<Instant> forget_due;    // lost: looked at again then, and not before
  std::optional<Instant>
      steady_since;  // it has not been lost since, as far as this coordinator saw
  // Whose key was revoked while it was here: not let in again as the same process, which may look
  // for us before it hears that it is to end.
  std::string expelled_incarnation;
  // Processes it runs that nobody knows (only if a ledger was lost): they hold their slots until
  // they are gone.
  std::map<ProcessId, std::uint32_t> strangers;
  std::vector<wire::DeviceReading> readings = {};  // of its devices, the newest
};

// What one process has been told in its worker's current session, and what it said.
struct ProcessSoft {
  bool seen = false;       // the worker has it, or was told to start it in this session
  Generation told;         // the newest generation it was ordered into
  Generation formed_told;  // FormGroup
  Generation aborted_told;
  Generation flags_told;  // SetFlags of the release
  bool stop_told = false;
  // Of the release that it was told to stop for; the most if that is not known.
  std::int64_t stop_due_unix_ms = std::numeric_limits<std::int64_t>::max();

  std::optional<wire::RankReady> ready;  // newest one
  std::optional<wire::GroupFormed> formed;
  std::optional<wire::RankFinished> finished;
  wire::HeldState held;  // as its last RankReady or GenerationBroken said
  wire::RankProgress progress;
  Instant progress_at;        // when it last moved
  Instant beat_at;            // when it last beat
  Duration longest_pause{0};  // between moves, in this session
  std::uint32_t changes = 0;
  double compute_us = 0;    // of a shard of a step, a mean over the last ones
  std::uint32_t steps = 0;  // that the mean has seen
  bool hang_told = false;   // of the standstill that lasts
  bool straggler_told = false;
  std::string limits;        // what holds it, as its worker said
  bool called_back = false;  // from its line, unless it has begun
};

struct JobSoft {
  std::uint64_t decision = 0;             // that submitted it, if this coordinator did
  std::vector<RequestId> requests;        // that submitted it, while it may be taken back
  std::uint64_t newest_step = 0;          // known to be committed by a rank
  std::optional<Instant> settle_until;    // not regrouped before
  std::optional<Instant> regroup_due;     // every survivor ready by then
  std::optional<Instant> start_due;       // every new process ready by then
  std::optional<Instant> formed_due;      // every rank at the base step by then
  std::optional<Instant> hang_due;        // looked for a rank that stands still
  std::optional<Instant> wait_due;        // placed again by then
  std::optional<Instant> checkpoint_due;  // every part written by then
  std::optional<Instant> time_due;        // limit.time
  std::optional<Instant> queued_due;      // limit.queued
  std::optional<Instant> release_due;     // left, as it was asked to, by then
  std::optional<Instant> begin_due;       // not placed before
  std::optional<Instant> overdue_due;     // from then on nobody passes it
  std::optional<Instant> full_size_due;   // waits for all of ranks.max until then
  std::optional<Instant> grow_due;        // may be given more ranks
  std::optional<Instant> line_due;        // stands in line no longer
  std::optional<Instant> partial_since;   // there is room for a part of its ranks; not a deadline
  std::optional<Instant> may_grow_at;     // not a deadline either
  std::int64_t aborted_unix_ms = 0;  // when the last survivor was known to have left the old group
  ProcessId committer;               // asked to commit the open checkpoint
  SessionId committer_session;
  std::optional<Instant> commit_due;
  std::uint32_t commit_attempts = 0;
  bool serving_open = false;
  double task_us = 0;  // of an array: how long a task takes, a mean over the last ones
  std::optional<wire::FirstStepDone> first_step;  // of this generation, not recorded yet
  std::string waiting;                            // what it waits for, for people
};

// Every deadline of a job; those that are set.
inline auto dues_of(const JobSoft& soft) {
  return std::array{&soft.settle_until,  &soft.regroup_due, &soft.start_due,      &soft.formed_due,
                    &soft.hang_due,      &soft.wait_due,    &soft.checkpoint_due, &soft.time_due,
                    &soft.queued_due,    &soft.commit_due,  &soft.begin_due,      &soft.overdue_due,
                    &soft.full_size_due, &soft.grow_due,    &soft.release_due,    &soft.line_due};
}

struct Desk {
  explicit Desk(ClusterSettings the_settings) : settings(std::move(the_settings)) {
    board.quotas = settings.quotas;
  }

  const ClusterSettings settings;
  Durable durable;
  std::map<std::string, WorkerLink, std::less<>> links;  // by worker
  std::map<std::string, std::string, std::less<>> worker_of_peer;
  std::map<ProcessId, ProcessSoft> processes;
  std::map<JobId, JobSoft> jobs;  // those that are not terminal
  ClusterCounters counters;
  scheduler::Board board;
  // When something is due, by job and by worker; may be early (due_index.h). What was stirred is
  // looked at again at the end of the decision.
  DueIndex<JobId> job_dues;
  DueIndex<std::string> link_dues;
  std::set<JobId> stirred_soft;
  std::set<std::string> stirred_links;
  std::uint64_t last_event = 0;
  std::uint64_t last_decision = 0;
  std::uint64_t last_session = 0;
  std::string ledger_failure;  // empty: the ledger takes appends
  // Requests whose answers wait for a decision to be durable.
  std::vector<std::pair<std::uint64_t, RequestId>> unanswered;
  bool schedule_due = false;   // a placement may have become possible
  bool schedule_next = false;  // the same, but only once this decision is durable

  std::optional<Instant> promised;  // what next_due said last

  // Of the input being handled.
  Instant now;
  WallTime wall;
  std::string random;
  std::uint32_t random_used = 0;
  std::uint64_t durable_through = UINT64_MAX;
  Decision decision;
  std::set<JobId> touched;

  // Journals and applies.
  void record(Fact fact);
  // The event's number and time are filled in.
  void note(Event event);
  void effect(Effect effect) { decision.effects.push_back(std::move(effect)); }
  void touch(JobId job) {
    touched.insert(job);
    board.stirred_jobs.insert(job);
  }
  // Whether new work may go there, or when it is due, may have changed.
  void stir_link(const std::string& worker) {
    stirred_links.insert(worker);
    board.stirred_workers.insert(worker);
  }
  void capacity_changed() { schedule_due = true; }
  // Once what was decided is durable.
  void answer(RequestId request, AnswerBody body) {
    effect(Answer{.request = request, .body = std::move(body)});
  }
  // A refusal changes nothing, so it needs no sync: it must get out while the disk is full.
  void refuse(RequestId request, ErrorCode code, std::string message);
  // What a request is refused with while nothing can be journalled; empty: it can.
  std::string full_disk() const;

  // A secret of its own for each call.
  std::string fresh_secret();
  // Drawn from [0, 1).
  double fresh_share();
  // Greater than all before, unlike any of an earlier coordinator.
  SessionId fresh_session();

  const JobRecord& job(JobId id) const;
  JobSoft& soft(JobId id) {
    stirred_soft.insert(id);
    return jobs[id];
  }
  // The link of the worker that runs the process, if it is open.
  WorkerLink* link_of(const ProcessRecord& process);
  // Numbers the order; a full queue counts as a lost worker, found by its deadline. Returns its
  // number.
  Sequence order(WorkerLink& link, wire::ToWorker message);
};

// "rank 1 of 2 on node-a"
std::string describe(const JobRecord& job, const ProcessRecord& process);

// When a limit that began at that time of day is over; never later than a whole limit from now,
// should the time of day have been set back.
Instant due_after(const Desk& desk, std::int64_t since_unix_ms, std::uint64_t limit_ms);

// A job that is not durable yet may be taken back, and then whoever asked for it again is told, too
// (I1). False: too many have asked.
bool may_be_told_again(Desk& desk, JobId job, RequestId request);

// Whether all that workers had to say before their Hello is here. A Hello says that a rank has
// finished before the reports of its last checkpoint's parts come again; without them the job would
// end with its last step unsaved.
bool have_said_all(Desk& desk, const JobRecord& job);

}  // namespace tutti::coordinator
