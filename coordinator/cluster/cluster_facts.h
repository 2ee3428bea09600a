// What happened, as the journal keeps it: the closed set of facts.
//
// A decision yields facts; only Durable::apply (durable.h) turns them into state; replaying them
// gives the same state byte for byte (I11). Events (cluster_events.h) ride in the same transaction.
// To add a fact: a struct here, at the end of Fact, a row
// in ledger/fact_codec.cc and an apply in durable.cc. Numbers of facts are never used twice.
//
// Units: times of day in UTC milliseconds.
#pragma once

#include <boost/describe/class.hpp>

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "coordinator/cluster/checkpoint_facts.h"
#include "coordinator/cluster/cluster_events.h"
#include "coordinator/cluster/cluster_records.h"
#include "coordinator/membership/node_facts.h"
#include "protocol/base/ids.h"

namespace tutti::coordinator {

struct JobSubmitted {
  JobId job;
  std::string key;
  std::string owner;
  std::string spec;
  std::string folder;
  JobTerms terms;
  std::int64_t unix_ms = 0;

  bool operator==(const JobSubmitted&) const = default;
};
BOOST_DESCRIBE_STRUCT(JobSubmitted, (), (job, key, owner, spec, folder, terms, unix_ms))

// The submit could not be made durable in time and was refused: it never was.
struct JobWithdrawn {
  JobId job;

  bool operator==(const JobWithdrawn&) const = default;
};
BOOST_DESCRIBE_STRUCT(JobWithdrawn, (), (job))

struct Placement {
  ProcessId process;
  std::string worker;
  std::string incarnation;
  std::uint32_t slot = 0;
  bool survivor = false;  // the process lives already and keeps its slot
  bool lined_up = false;  // begins when those before it on its slot have ended (life/line.h)

  bool operator==(const Placement&) const = default;
};
BOOST_DESCRIBE_STRUCT(Placement, (), (process, worker, incarnation, slot, survivor, lined_up))

// The whole gang is reserved, by rank, in one fact (I4, I5). The job is placed, or stays
// recovering.
struct GenerationStarted {
  JobId job;
  Generation generation;
  std::vector<Placement> gang;
  std::int64_t unix_ms = 0;

  bool operator==(const GenerationStarted&) const = default;
};
BOOST_DESCRIBE_STRUCT(GenerationStarted, (), (job, generation, gang, unix_ms))

struct ProcessStarted {
  ProcessId process;
  std::int64_t pid = 0;

  bool operator==(const ProcessStarted&) const = default;
};
BOOST_DESCRIBE_STRUCT(ProcessStarted, (), (process, pid))

// All ranks are ready and FormGroup is ordered.
struct GroupOrdered {
  JobId job;
  Generation generation;
  Formation formation;
  std::uint64_t lost_steps = 0;
  std::int64_t aborted_unix_ms = 0;  // when the last survivor had left the old group
  std::int64_t unix_ms = 0;

  bool operator==(const GroupOrdered&) const = default;
};
BOOST_DESCRIBE_STRUCT(GroupOrdered, (),
                      (job, generation, formation, lost_steps, aborted_unix_ms, unix_ms))

// Every rank stands at one step: the job is running.
struct GroupRunning {
  JobId job;
  Generation generation;
  std::int64_t unix_ms = 0;
  // Where the ranks went further back than they were led: the checkpoints in between did not
  // verify and count no more.
  bool fell_back = false;
  std::uint64_t step = 0;

  bool operator==(const GroupRunning&) const = default;
};
BOOST_DESCRIBE_STRUCT(GroupRunning, (), (job, generation, unix_ms, fell_back, step))

struct FirstStepSeen {
  JobId job;
  Generation generation;
  std::uint64_t step = 0;
  std::int64_t unix_ms = 0;

  bool operator==(const FirstStepSeen&) const = default;
};
BOOST_DESCRIBE_STRUCT(FirstStepSeen, (), (job, generation, step, unix_ms))

// The generation commits nothing from here on; survivors keep their state for the next one.
struct GenerationAborted {
  JobId job;
  Generation generation;
  std::string cause;
  std::uint64_t step = 0;  // newest one known to be committed
  std::int64_t unix_ms = 0;
  bool planned = false;  // all ranks left after a common step: nobody is charged

  bool operator==(const GenerationAborted&) const = default;
};
BOOST_DESCRIBE_STRUCT(GenerationAborted, (), (job, generation, cause, step, unix_ms, planned))

// The first cause of an interruption, charged to whom it belongs (I8).
struct FailureCounted {
  JobId job;
  wire::FailureClass failure = wire::FailureClass::none;
  std::uint64_t step = 0;
  std::int64_t unix_ms = 0;

  bool operator==(const FailureCounted&) const = default;
};
BOOST_DESCRIBE_STRUCT(FailureCounted, (), (job, failure, step, unix_ms))

// The process will be ended; its slot is not free yet.
struct ProcessStopOrdered {
  ProcessId process;

  bool operator==(const ProcessStopOrdered&) const = default;
};
BOOST_DESCRIBE_STRUCT(ProcessStopOrdered, (), (process))

// The process is gone and its slot is free.
struct ProcessEnded {
  ProcessId process;
  std::int32_t code = 0;
  std::int32_t signal = 0;
  std::string error;
  std::uint64_t memory_peak_bytes = 0;
  std::uint64_t cpu_ms = 0;

  bool operator==(const ProcessEnded&) const = default;
};
BOOST_DESCRIBE_STRUCT(ProcessEnded, (), (process, code, signal, error, memory_peak_bytes, cpu_ms))

// How the job ends (or that it queues again) is decided; its processes are being ended.
struct JobStopping {
  JobId job;
  Outcome outcome;

  bool operator==(const JobStopping&) const = default;
};
BOOST_DESCRIBE_STRUCT(JobStopping, (), (job, outcome))

// No process is left: the decided outcome takes effect.
struct JobSettled {
  JobId job;
  Outcome outcome;
  std::uint64_t step = 0;  // newest one known to be committed
  std::int64_t unix_ms = 0;

  bool operator==(const JobSettled&) const = default;
};
BOOST_DESCRIBE_STRUCT(JobSettled, (), (job, outcome, step, unix_ms))

// The history of ended jobs is bounded: the oldest is dropped.
struct JobForgotten {
  JobId job;

  bool operator==(const JobForgotten&) const = default;
};
BOOST_DESCRIBE_STRUCT(JobForgotten, (), (job))

// A task of an array got its turn and is a job of its own from here on, until it is forgotten.
struct TaskStarted {
  JobId job;    // the task's
  JobId array;  // what it belongs to
  std::uint32_t index = 0;

  bool operator==(const TaskStarted&) const = default;
};
BOOST_DESCRIBE_STRUCT(TaskStarted, (), (job, array, index))

// A task that had not got its turn will not get it.
struct TaskCancelled {
  JobId job;  // the array
  std::uint32_t index = 0;
  std::string message;

  bool operator==(const TaskCancelled&) const = default;
};
BOOST_DESCRIBE_STRUCT(TaskCancelled, (), (job, index, message))

// `on` has ended as the job needs it to, and may be forgotten.
struct DependencyMet {
  JobId job;
  JobId on;
  std::int64_t unix_ms = 0;

  bool operator==(const DependencyMet&) const = default;
};
BOOST_DESCRIBE_STRUCT(DependencyMet, (), (job, on, unix_ms))

// The job is asked to leave its slots after a common step; newcomers of a new size get theirs.
struct JobReleasing {
  JobId job;
  ReleaseRecord release;
  std::vector<Placement> newcomers;

  bool operator==(const JobReleasing&) const = default;
};
BOOST_DESCRIBE_STRUCT(JobReleasing, (), (job, release, newcomers))

// It goes on as it is: the change of size came to nothing, or is made.
struct ReleaseEnded {
  JobId job;
  std::string reason;

  bool operator==(const ReleaseEnded&) const = default;
};
BOOST_DESCRIBE_STRUCT(ReleaseEnded, (), (job, reason))

// Smaller numbers may have been given by a coordinator whose journal this is not: it was put back
// to a time before, or removed. What these jobs and processes left is on disks and workers, so none
// of them is given again.
struct NumbersPassed {
  std::uint64_t next_job = 1;
  std::uint64_t next_process = 1;

  bool operator==(const NumbersPassed&) const = default;
};
BOOST_DESCRIBE_STRUCT(NumbersPassed, (), (next_job, next_process))

using Fact = std::variant<WorkerJoined,         //
                          WorkerLost,           //
                          WorkerForgotten,      //
                          JobSubmitted,         //
                          JobWithdrawn,         //
                          GenerationStarted,    //
                          ProcessStarted,       //
                          GroupOrdered,         //
                          GroupRunning,         //
                          FirstStepSeen,        //
                          GenerationAborted,    //
                          ProcessStopOrdered,   //
                          ProcessEnded,         //
                          JobStopping,          //
                          JobSettled,           //
                          JobForgotten,         //
                          CheckpointPartTaken,  //
                          CheckpointTaken,      //
                          CheckpointDropped,    //
                          FailureCounted,       //
                          NodeDraining,         //
                          NodeUndrained,        //
                          NodeBlamed,           //
                          JobReleasing,         //
                          ReleaseEnded,         //
                          TaskStarted,          //
                          TaskCancelled,        //
                          DependencyMet,        //
                          ProcessReturned,      //
                          CommitOrdered,        //
                          StartRefused,         //
                          RefusalsForgotten,    //
                          NumbersPassed>;

}  // namespace tutti::coordinator
