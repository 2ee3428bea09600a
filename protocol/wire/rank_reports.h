// Reports: rank -> worker -> coordinator. The flow is drawn in rank_messages.h.
#pragma once

#include <boost/describe/class.hpp>
#include <boost/describe/enum.hpp>

#include <cstdint>
#include <string>
#include <vector>

#include "protocol/base/ids.h"
#include "protocol/wire/rank_orders.h"

namespace tutti::wire {

// Which training state a process holds: whole after `step`; with `pending` set, also the reduced
// gradients and all that is needed to step to it without communication (the step commit, DESIGN
// jobs).
struct HeldState {
  bool whole = false;
  std::uint64_t step = 0;
  std::uint64_t pending = 0;  // step + 1, or 0: none

  bool operator==(const HeldState&) const = default;
};
BOOST_DESCRIBE_STRUCT(HeldState, (), (whole, step, pending))

struct RankReady {
  JobId job;
  Generation generation;
  ProcessId process;
  std::uint32_t rank = 0;
  std::string
      address;  // data plane: unix:PATH, tcp:HOST:PORT; for `run`: HOST:PORT free on that node
  HeldState held;

  bool operator==(const RankReady&) const = default;
};
BOOST_DESCRIBE_STRUCT(RankReady, (), (job, generation, process, rank, address, held))

// Connected to all, at the base step. For `serve`: where requests are taken (transport endpoint and
// its public key).
struct GroupFormed {
  JobId job;
  Generation generation;
  ProcessId process;
  std::uint32_t rank = 0;
  std::uint64_t step = 0;
  std::uint64_t copied_bytes = 0;  // received from a peer or read from a checkpoint
  std::string serve_endpoint;      // tcp://HOST:PORT
  std::string serve_key;           // CURVE public key, Z85
  std::string model;               // name that clients ask for

  bool operator==(const GroupFormed&) const = default;
};
BOOST_DESCRIBE_STRUCT(GroupFormed, (),
                      (job, generation, process, rank, step, copied_bytes, serve_endpoint,
                       serve_key, model))

// Who is to blame when a process ends badly (DESIGN jobs). `none`: it did not end badly, or nobody
// knows yet.
//   user: a wrong spec, out of memory, a non-zero exit of a `run` program
//   infrastructure: a SIGKILL that nobody here ordered, a lost node, a full or broken disk
//   own: an assertion, a crash of tutti-rank
BOOST_DEFINE_ENUM_CLASS(FailureClass, none, user, infrastructure, own)

// The rank left its group without an order: a peer is gone, or a collective failed. It keeps its
// state and waits.
struct GenerationBroken {
  JobId job;
  Generation generation;
  ProcessId process;
  std::uint32_t rank = 0;
  std::int32_t suspect = -1;  // the peer rank that was seen gone, or -1
  std::string reason;
  HeldState held;
  // own: the ranks themselves are out of order, which no machine is to blame for; none: not known.
  FailureClass failure = FailureClass::none;

  bool operator==(const GenerationBroken&) const = default;
};
BOOST_DESCRIBE_STRUCT(GenerationBroken, (),
                      (job, generation, process, rank, suspect, reason, held, failure))

// The first training step of a generation has been committed; closes the phases of a recovery.
struct FirstStepDone {
  JobId job;
  Generation generation;
  ProcessId process;
  std::uint64_t step = 0;

  bool operator==(const FirstStepDone&) const = default;
};
BOOST_DESCRIBE_STRUCT(FirstStepDone, (), (job, generation, process, step))

// This rank's files of the checkpoint of `step` are written and synced in the private folder; or
// why not.
struct CheckpointPart {
  JobId job;
  Generation generation;
  ProcessId process;
  std::uint32_t rank = 0;
  std::uint64_t step = 0;
  std::vector<CheckpointFile> files;
  std::string error;  // empty: written

  bool operator==(const CheckpointPart&) const = default;
};
BOOST_DESCRIBE_STRUCT(CheckpointPart, (), (job, generation, process, rank, step, files, error))

struct CheckpointCommitted {
  JobId job;
  Generation generation;
  ProcessId process;
  std::uint64_t step = 0;
  std::string folder;  // where it is now
  std::string error;   // empty: committed

  bool operator==(const CheckpointCommitted&) const = default;
};
BOOST_DESCRIBE_STRUCT(CheckpointCommitted, (), (job, generation, process, step, folder, error))

// The rank has nothing left to do (last step done, or `failure` says why it cannot go on); it waits
// for StopRank.
struct RankFinished {
  JobId job;
  Generation generation;
  ProcessId process;
  std::uint32_t rank = 0;
  std::uint64_t step = 0;
  FailureClass failure = FailureClass::none;
  std::string message;  // one line for people when it failed

  bool operator==(const RankFinished&) const = default;
};
BOOST_DESCRIBE_STRUCT(RankFinished, (), (job, generation, process, rank, step, failure, message))

// One step record (DESIGN jobs), a JSON object without a line break. The worker spools it; it is
// not a report.
struct StepReported {
  JobId job;
  Generation generation;
  ProcessId process;
  std::string line;

  bool operator==(const StepReported&) const = default;
};
BOOST_DESCRIBE_STRUCT(StepReported, (), (job, generation, process, line))

// Soft state: where the process is. Latest wins; may be lost.
struct RankProgress {
  JobId job;
  Generation generation;
  ProcessId process;
  std::string
      phase;  // loading, connecting, copying, forward, exchange, update, checkpoint, serving, idle
  std::uint64_t step = 0;
  std::uint64_t collective =
      0;  // number of the collective it is in or did last, within the generation
  std::uint64_t compute_us = 0;  // of a shard of its last step, without waits
  std::uint64_t beat = 0;        // seconds of its own clock: stands still only if the process does

  bool operator==(const RankProgress&) const = default;
};
BOOST_DESCRIBE_STRUCT(RankProgress, (),
                      (job, generation, process, phase, step, collective, compute_us, beat))

}  // namespace tutti::wire
