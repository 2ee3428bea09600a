// What a worker and the ranks that it started tell each other, over the socket pair that the rank was born with.
//
// Most of these are the coordinator's orders and the ranks' reports, passed on by the worker unchanged: a rank is steered
// by (job, generation, process). A *process* is one start of one rank program; a *generation* is one forming of a job's
// group. A process that survives a loss joins the next generation with its state in memory.
//
//   StartRank ->            the process begins
//          <- RankReady     it listens, and says which state it holds
//   FormGroup ->            addresses of all, the step to begin at, who copies from whom
//          <- GroupFormed   it stands at the base step with everybody connected
//          <- StepReported  ... one a training step
//   AbortGeneration ->      leave the group at once, keep the state
//   Regroup(g+1) ->         listen anew  <- RankReady(g+1) ...
//          <- RankFinished  nothing left to do; it waits for StopRank
//
// Ownership: plain values. Units: as named. A field that is missing on the wire has the default given here.
#pragma once

#include <boost/describe/class.hpp>
#include <boost/describe/enum.hpp>

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "protocol/base/ids.h"

namespace tutti::wire {

// Coordinator -> worker -> rank: orders -----------------------------------------------------------------------------

// Start one process for `rank` of `size` in `slot`. For kind `run` the worker only picks an address (for MASTER_ADDR and
// MASTER_PORT) and answers RankReady itself; it executes the program at FormGroup, when it knows rank 0's.
struct StartRank {
  JobId job;
  Generation generation;
  ProcessId process;
  std::uint32_t rank = 0;
  std::uint32_t size = 0;
  std::uint32_t slot = 0;
  std::uint32_t threads = 1;
  std::string name;    // the job's name, for logs
  std::string kind;    // as in the spec: train, serve, run, ...
  std::string spec;    // the resolved spec, YAML
  std::string folder;  // the job's folder on storage that all its ranks see; checkpoints are <folder>/checkpoints/step-N
  std::uint32_t start_ms_max = 60'000;  // the worker ends a process that is not ready by then

  bool operator==(const StartRank&) const = default;
};
BOOST_DESCRIBE_STRUCT(StartRank, (),
                      (job, generation, process, rank, size, slot, threads, name, kind, spec, folder, start_ms_max))

// A living process joins the forming of `generation` as `rank` of `size`. It has left its old group already, or leaves now.
struct Regroup {
  JobId job;
  Generation generation;
  ProcessId process;
  std::uint32_t rank = 0;
  std::uint32_t size = 0;

  bool operator==(const Regroup&) const = default;
};
BOOST_DESCRIBE_STRUCT(Regroup, (), (job, generation, process, rank, size))

struct StateCopy {
  std::uint32_t from = 0;  // ranks of the new generation
  std::uint32_t to = 0;

  bool operator==(const StateCopy&) const = default;
};
BOOST_DESCRIBE_STRUCT(StateCopy, (), (from, to))

// All are ready: connect, and stand at `base_step`. A rank gets there, in this order of preference: it holds that step; it
// holds the reduced gradients that lead there; `copies` names a peer to receive from; `checkpoint` is loaded; at step 0
// the state is initialised from the seed.
struct FormGroup {
  JobId job;
  Generation generation;
  ProcessId process;
  std::vector<std::string> addresses;  // by rank, as their RankReady gave them
  std::string secret;                  // of this generation; a peer that cannot show it is refused
  std::uint64_t base_step = 0;
  std::string checkpoint;  // folder of the checkpoint of base_step; empty: none
  std::vector<StateCopy> copies;

  bool operator==(const FormGroup&) const = default;
};
BOOST_DESCRIBE_STRUCT(FormGroup, (),
                      (job, generation, process, addresses, secret, base_step, checkpoint, copies))

// Leave every group of this job up to and including `generation`, at once; keep the state.
struct AbortGeneration {
  JobId job;
  Generation generation;
  ProcessId process;
  std::string reason;

  bool operator==(const AbortGeneration&) const = default;
};
BOOST_DESCRIBE_STRUCT(AbortGeneration, (), (job, generation, process, reason))

// End the process: asked first, SIGTERM for a `run` program, SIGKILL after `grace_ms`.
struct StopRank {
  JobId job;
  ProcessId process;
  std::uint32_t grace_ms = 5'000;
  std::string reason;

  bool operator==(const StopRank&) const = default;
};
BOOST_DESCRIBE_STRUCT(StopRank, (), (job, process, grace_ms, reason))

// One file of a checkpoint: name within the folder, size, XXH3-128 in hexadecimal.
struct CheckpointFile {
  std::string name;
  std::uint64_t bytes = 0;
  std::string hash;

  bool operator==(const CheckpointFile&) const = default;
};
BOOST_DESCRIBE_STRUCT(CheckpointFile, (), (name, bytes, hash))

// All parts of step `step` are on disk: write manifest.json into the private folder of this generation, sync, rename it to
// step-N, sync the parent, prune to `keep`. Idempotent.
struct CommitCheckpoint {
  JobId job;
  Generation generation;
  ProcessId process;
  std::uint64_t step = 0;
  std::vector<CheckpointFile> files;
  std::uint32_t keep = 0;            // newest checkpoints to keep; 0: all
  std::vector<std::uint64_t> in_use; // steps that must not be pruned

  bool operator==(const CommitCheckpoint&) const = default;
};
BOOST_DESCRIBE_STRUCT(CommitCheckpoint, (), (job, generation, process, step, files, keep, in_use))

// Ride on the next step's exchange, so that all ranks act after the same step.
struct SetFlags {
  JobId job;
  Generation generation;
  ProcessId process;
  bool save = false;  // checkpoint after this step
  bool stop = false;  // then finish

  bool operator==(const SetFlags&) const = default;
};
BOOST_DESCRIBE_STRUCT(SetFlags, (), (job, generation, process, save, stop))

// Fault injection: send a signal to the process (9 kills, 19 stops, 18 continues). Workers started without --faults refuse.
struct SignalRank {
  JobId job;
  ProcessId process;
  std::int32_t signal = 9;

  bool operator==(const SignalRank&) const = default;
};
BOOST_DESCRIBE_STRUCT(SignalRank, (), (job, process, signal))

// Rank -> worker -> coordinator: reports ----------------------------------------------------------------------------

// Which training state a process holds: whole after `step`; with `pending` set, also the reduced gradients and all that is
// needed to step to it without communication (the step commit, DESIGN jobs).
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
  std::string address;  // data plane: unix:PATH, tcp:HOST:PORT; for `run`: HOST:PORT free on that node
  HeldState held;

  bool operator==(const RankReady&) const = default;
};
BOOST_DESCRIBE_STRUCT(RankReady, (), (job, generation, process, rank, address, held))

// Connected to all, at the base step. For `serve`: where requests are taken (transport endpoint and its public key).
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
                      (job, generation, process, rank, step, copied_bytes, serve_endpoint, serve_key, model))

// The rank left its group without an order: a peer is gone, or a collective failed. It keeps its state and waits.
struct GenerationBroken {
  JobId job;
  Generation generation;
  ProcessId process;
  std::uint32_t rank = 0;
  std::int32_t suspect = -1;  // the peer rank that was seen gone, or -1
  std::string reason;
  HeldState held;

  bool operator==(const GenerationBroken&) const = default;
};
BOOST_DESCRIBE_STRUCT(GenerationBroken, (), (job, generation, process, rank, suspect, reason, held))

// The first training step of a generation has been committed; closes the phases of a recovery.
struct FirstStepDone {
  JobId job;
  Generation generation;
  ProcessId process;
  std::uint64_t step = 0;

  bool operator==(const FirstStepDone&) const = default;
};
BOOST_DESCRIBE_STRUCT(FirstStepDone, (), (job, generation, process, step))

// This rank's files of the checkpoint of `step` are written and synced in the private folder; or why not.
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

// Who is to blame when a process ends badly (DESIGN jobs). `none`: it did not end badly, or nobody knows yet.
//   user: a wrong spec, out of memory, a non-zero exit of a `run` program
//   infrastructure: a SIGKILL that nobody here ordered, a lost node, a full or broken disk
//   own: an assertion, a crash of tutti-rank
BOOST_DEFINE_ENUM_CLASS(FailureClass, none, user, infrastructure, own)

// The rank has nothing left to do (last step done, or `failure` says why it cannot go on); it waits for StopRank.
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

// One step record (DESIGN jobs), a JSON object without a line break. The worker spools it; it is not a report.
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
  std::string phase;  // loading, connecting, copying, forward, exchange, update, checkpoint, serving, idle
  std::uint64_t step = 0;
  std::uint64_t collective = 0;  // number of the collective it is in or did last, within the generation

  bool operator==(const RankProgress&) const = default;
};
BOOST_DESCRIBE_STRUCT(RankProgress, (), (job, generation, process, phase, step, collective))

using ToRank = std::variant<StartRank, Regroup, FormGroup, AbortGeneration, StopRank, CommitCheckpoint, SetFlags>;
using FromRank = std::variant<RankReady, GroupFormed, GenerationBroken, FirstStepDone, CheckpointPart,
                              CheckpointCommitted, RankFinished, StepReported, RankProgress>;

}  // namespace tutti::wire
