// What the coordinator remembers across its own death: jobs, their processes, the workers that it
// met.
//
// These structs are the durable state. They change in one place only, Durable::apply (durable.h),
// by journalled facts; a snapshot is these structs encoded by the wire codec. Fields may be added
// (with a default), never renamed.
//
// Units: as named; times of day in UTC milliseconds.
#pragma once

#include <boost/describe/class.hpp>
#include <boost/describe/enum.hpp>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/cluster/checkpoint_records.h"
#include "coordinator/life/life_records.h"
#include "coordinator/scheduler/scheduler_records.h"
#include "protocol/base/ids.h"
#include "protocol/wire/device_state.h"
#include "protocol/wire/rank_messages.h"

namespace tutti::coordinator {

// DESIGN jobs: queued -> placed -> starting -> running -> (recovering -> running)* -> done | failed
// | cancelled. `stopping` is on the way from any of them to queued or to an end, while processes
// are still being ended.
BOOST_DEFINE_ENUM_CLASS(JobState, queued, placed, starting, running, recovering, stopping, done,
                        failed, cancelled)

constexpr bool is_terminal(JobState state) {
  return state == JobState::done || state == JobState::failed || state == JobState::cancelled;
}

// The part of a spec that decisions are made by, so that a replay never depends on the parser.
struct JobTerms {
  std::string name;
  std::string kind;  // train | serve | run
  std::int32_t priority = 0;
  std::uint32_t ranks_min = 1;            // parallel.data sets both
  std::uint32_t ranks_max = 1;            // never above the number of shards
  std::uint32_t threads = 0;              // a rank; 0: the cores of its slot
  std::uint32_t cores = 0;                // a rank; 0: those of its slot
  std::uint64_t memory_bytes = 0;         // a rank
  std::uint64_t device_memory_bytes = 0;  // of the device that a rank has, at least; 0: any
  std::vector<std::string> labels;        // key=value, all of which a worker must have
  std::uint64_t steps = 0;                // train: the last step
  std::uint32_t checkpoints_kept = 0;     // 0: all
  std::string resume_folder;              // train: a checkpoint of another job to begin from
  std::uint64_t resume_step = 0;
  std::string of_node = "replace";  // wait | replace | shrink | fail
  std::uint64_t wait_ms = 60'000;   // for a node (wait) or for free slots (replace)
  std::uint32_t retries_user = 0;
  std::uint32_t retries_infrastructure = 20;
  std::uint64_t time_ms_max = 0;         // running; 0: no limit
  std::uint64_t queued_ms_max = 0;       // 0: no limit
  std::uint64_t stop_after_ms = 60'000;  // run: without the coordinator's word; 0: for ever
  std::vector<RetryRule> retry_rules;    // the first that matches counts
  std::uint64_t backoff_first_ms = 1'000;
  std::uint64_t backoff_max_ms = 60'000;
  double backoff_jitter = 0.2;
  std::uint32_t preemptions_max = 0;    // then nobody preempts it any more; 0: no limit
  std::string loss_then = {};           // after wait_ms: fail | queue | shrink
  std::uint64_t hang_after_ms = 0;      // 0: by the ranks' own pace
  std::string hang_action = "restart";  // restart | fail | tell
  std::vector<std::string> reads = {};  // model and checkpoint folders: not pruned meanwhile
  std::vector<Dependency> after;    // as submitted; what is left of it is JobRecord::dependencies
  std::int64_t begin_unix_ms = 0;   // not placed before
  std::uint32_t array_count = 0;    // tasks; 0: not an array
  std::uint32_t array_at_once = 0;  // 0: no limit
  std::vector<std::string> prefer;  // key=value: the more of them a worker has, the better
  std::string policy = "first-fit";
  bool preemptible = false;
  std::string precision = "fp32";  // train
  // train: the numerics profile of all its ranks, fixed at its first placement; empty before
  std::string profile = {};
  // run: workers that could not start its program, ascending, at most kAvoidedMax
  std::vector<std::string> avoid = {};

  bool operator==(const JobTerms&) const = default;
};
BOOST_DESCRIBE_STRUCT(JobTerms, (),
                      (name, kind, priority, ranks_min, ranks_max, threads, cores, memory_bytes,
                       labels, steps, checkpoints_kept, resume_folder, resume_step, of_node,
                       wait_ms, retries_user, retries_infrastructure, time_ms_max,
                       queued_ms_max,                                                  //
                       retry_rules, backoff_first_ms, backoff_max_ms, backoff_jitter,  //
                       preemptions_max, loss_then, hang_after_ms, hang_action, reads,
                       stop_after_ms,  //
                       after, begin_unix_ms, array_count, array_at_once, prefer, policy,
                       preemptible,  //
                       precision, profile, device_memory_bytes, avoid))

// How a job ends, or why it goes back to the queue, decided before its processes are ended.
struct Outcome {
  JobState state = JobState::queued;  // queued: it will be placed again
  std::int32_t exit_code = 0;  // 0 done, 1 user or cancelled, 3 infrastructure, 4 own, 5 refused
  wire::FailureClass failure = wire::FailureClass::none;
  std::string message;                  // one line: the first cause
  std::int64_t not_before_unix_ms = 0;  // queued: the next try waits until then
  // How the process ended whose end was the first cause: neither, where that was something else.
  std::optional<std::int32_t> code = std::nullopt;
  std::optional<std::int32_t> signal = std::nullopt;

  bool operator==(const Outcome&) const = default;
};
BOOST_DESCRIBE_STRUCT(Outcome, (),
                      (state, exit_code, failure, message, not_before_unix_ms, code, signal))

// The orders of one FormGroup, journalled before they are given, so that a restarted coordinator
// gives the same ones.
struct Formation {
  std::vector<std::string> addresses;  // by rank; empty: not ordered yet
  std::string secret;
  std::uint64_t base_step = 0;
  std::string checkpoint;  // folder of the committed checkpoint of base_step; empty: there is none
  std::vector<wire::StateCopy> copies;

  bool operator==(const Formation&) const = default;
};
BOOST_DESCRIBE_STRUCT(Formation, (), (addresses, secret, base_step, checkpoint, copies))

// One recovery and its phases, in milliseconds since the loss was seen; -1: not reached yet.
struct Recovery {
  Generation generation;  // the one that went on
  std::string cause;      // the first
  std::int64_t seen_unix_ms = 0;
  std::int64_t aborted_ms = -1;     // every survivor has left the old group
  std::int64_t regrouped_ms = -1;   // every rank of the new generation is ready
  std::int64_t copied_ms = -1;      // every rank stands at the base step, connected
  std::int64_t first_step_ms = -1;  // the first step since is committed
  std::uint64_t from_step = 0;
  std::uint64_t lost_steps = 0;
  bool planned = false;          // a change of size or place, no loss
  std::int64_t decided_ms = -1;  // the next generation was journalled

  bool operator==(const Recovery&) const = default;
};
BOOST_DESCRIBE_STRUCT(Recovery, (),
                      (generation, cause, seen_unix_ms, aborted_ms, regrouped_ms, copied_ms,
                       first_step_ms, from_step, lost_steps,  //
                       planned, decided_ms))

struct JobRecord {
  JobId job;
  std::string key;
  std::string owner;
  std::string spec;  // resolved, YAML
  std::string folder;
  JobTerms terms;
  std::int64_t submitted_unix_ms = 0;
  std::int64_t started_unix_ms = 0;  // first time running
  std::int64_t ended_unix_ms = 0;

  JobState state = JobState::queued;
  Outcome outcome;                // valid in stopping and in terminal states
  Generation generation;          // newest one started
  bool generation_alive = false;  // false: aborted, or none since the job was queued
  bool formed = false;            // all ranks of the generation reported GroupFormed
  // Of the generation, by rank; zero: that rank's process is gone.
  std::vector<ProcessId> members;
  std::uint32_t size = 0;          // ranks of the newest generation
  std::vector<std::string> homes;  // the worker that each rank was last placed on
  std::uint32_t ranks_done = 0;    // run: programs of the generation that exited with 0
  Formation formation;
  OpenCheckpoint open_checkpoint;
  std::uint64_t dropped_step = 0;  // given up in this generation: its late parts are not wanted
  std::vector<CommittedCheckpoint> checkpoints;  // oldest first, at most kCheckpointsMax
  std::vector<Recovery> recoveries;              // oldest first, at most kRecoveriesMax

  std::uint64_t step = 0;      // newest one known to be committed, as of the last fact that says so
  std::uint32_t restarts = 0;  // generations after the first
  bool failure_counted = false;  // of this interruption: the first cause counts, followers do not
  std::uint32_t failures_user = 0;
  std::uint32_t failures_infrastructure = 0;
  std::uint32_t failures_own_here = 0;  // at own_step, in a row
  std::uint64_t own_step = 0;
  // Of its processes that have ended, in all generations.
  std::uint64_t memory_peak_bytes = 0;  // the largest
  std::uint64_t cpu_ms = 0;             // of all together
  ReleaseRecord release;
  std::uint32_t preemptions = 0;  // times it left its slots for others
  std::uint32_t drains = 0;       // or because its node was drained
  std::uint32_t resizes = 0;
  std::uint32_t failures_in_row = 0;  // without a further step, or steady work, between them
  std::uint64_t failure_step = 0;     // of the last one
  std::int64_t failure_unix_ms = 0;
  std::vector<Dependency> dependencies;  // not met yet
  ArrayTasks tasks;                      // of an array
  JobId array;                           // of a task: the array it belongs to
  std::uint32_t index = 0;               // of a task
  std::int64_t placed_unix_ms = 0;       // when it got the slots that it holds; 0: it holds none
  std::int64_t queued_unix_ms = 0;       // when it began to wait for its turn
  // Steps above the newest known checkpoint that a rank was asked to commit: each may be there.
  std::vector<std::uint64_t> commits_asked;  // at most kCommitsAskedMax
  // limit.time counts what it runs, not what it waits: since when it does, counted from the first
  // time running after each wait (0: not since it was queued), and for how long before that.
  std::int64_t running_unix_ms = 0;
  std::uint64_t ran_ms = 0;
  // run: the worker that could not start its program, until it has begun on another one.
  std::string refused_on;

  bool operator==(const JobRecord&) const = default;
};
BOOST_DESCRIBE_STRUCT(JobRecord, (),
                      (job, key, owner, spec, folder, terms, submitted_unix_ms, started_unix_ms,
                       ended_unix_ms, state, outcome, generation, generation_alive, formed, members,
                       size, homes, ranks_done, formation, open_checkpoint, dropped_step,
                       checkpoints, recoveries, step, restarts, failure_counted, failures_user,
                       failures_infrastructure, failures_own_here, own_step,  //
                       release, preemptions, drains, resizes,                 //
                       failures_in_row, failure_step, failure_unix_ms,        //
                       memory_peak_bytes, cpu_ms,                             //
                       dependencies, tasks, array, index, placed_unix_ms, queued_unix_ms,
                       commits_asked, running_unix_ms, ran_ms, refused_on))

// Of the gang of its newest generation.
inline bool is_member(const JobRecord& job, ProcessId process) {
  return std::find(job.members.begin(), job.members.end(), process) != job.members.end();
}

// One process that holds a slot: from its placement until its worker has said that it is gone.
struct ProcessRecord {
  ProcessId process;
  JobId job;
  Generation generation;  // the one it was started for
  std::uint32_t rank = 0;
  std::string worker;
  std::string incarnation;  // of the worker that was told to start it
  std::uint32_t slot = 0;
  std::int64_t pid = 0;  // 0: not begun yet
  bool lost =
      false;  // its worker was lost: the job no longer counts on it, the slot is not free yet
  bool ordered_to_stop = false;
  bool lined_up =
      false;  // it was placed behind others on its slot, and waits for it while pid is 0

  bool operator==(const ProcessRecord&) const = default;
};
BOOST_DESCRIBE_STRUCT(ProcessRecord, (),
                      (process, job, generation, rank, worker, incarnation, slot, pid, lost,
                       ordered_to_stop, lined_up))

struct WorkerRecord {
  std::string worker;
  std::string incarnation;
  std::string host;
  std::string version;
  std::string cpu;
  std::uint32_t slots = 0;
  std::uint32_t cores = 0;
  std::uint64_t memory_bytes = 0;
  std::vector<std::string> profiles;
  bool runs_programs = true;
  bool faults = false;
  bool lost = false;
  Drain drain;
  std::vector<NodeBlame> blames;  // oldest first, at most kBlamesMax
  std::int64_t lost_unix_ms = 0;
  std::vector<std::string> labels = {};  // key=value
  std::string limits = {};               // cgroup2 | cgroup1 | rlimit; empty: an older worker
  std::vector<wire::DeviceState> devices = {};  // by slot; empty: the CPU
  std::string device_stack = {};
  std::string exchange = {};  // as in Hello

  bool draining() const { return drain.cause != DrainCause::none; }
  bool operator==(const WorkerRecord&) const = default;
};
BOOST_DESCRIBE_STRUCT(WorkerRecord, (),
                      (worker, incarnation, host, version, cpu, slots, cores, memory_bytes,
                       profiles, runs_programs, faults, lost,  //
                       drain, blames, lost_unix_ms,            //
                       labels, limits,                         //
                       devices, device_stack, exchange))

// Nobody starts so many between a copy of the journal and its being put back: processes that were
// started in that time, and what they wrote, are told from those of now by their numbers.
inline constexpr std::uint64_t kProcessesPassed = std::uint64_t{1} << 32;

// Everything durable, as a snapshot holds it; each list in the order of its ids.
struct Snapshot {
  std::uint64_t next_job = 1;
  std::uint64_t next_process = 1;
  std::vector<JobRecord> jobs;
  std::vector<ProcessRecord> processes;
  std::vector<WorkerRecord> workers;
  std::vector<KeyRecord> keys;     // in the order in which their jobs were forgotten
  std::vector<UsageRecord> usage;  // by owner

  bool operator==(const Snapshot&) const = default;
};
BOOST_DESCRIBE_STRUCT(Snapshot, (), (next_job, next_process, jobs, processes, workers, keys, usage))

}  // namespace tutti::coordinator
