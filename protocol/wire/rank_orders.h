// Orders: coordinator -> worker -> rank. The flow is drawn in rank_messages.h.
#pragma once

#include <boost/describe/class.hpp>

#include <cstdint>
#include <string>
#include <vector>

#include "protocol/base/ids.h"

namespace tutti::wire {

// Start one process for `rank` of `size` in `slot`. For kind `run` the worker only picks an address
// (for MASTER_ADDR and MASTER_PORT) and answers RankReady itself; it executes the program at
// FormGroup, when it knows rank 0's. With `at_once` (a gang of one) it executes it right away, says
// RankStarted and GroupFormed, and no FormGroup is needed; one that comes all the same is answered.
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
  std::string folder;  // the job's folder on storage that all its ranks see; checkpoints are
                       // <folder>/checkpoints/step-N
  std::uint32_t start_ms_max = 60'000;  // the worker ends a process that is not ready by then
  bool at_once = false;                 // run: a gang of one, executed at this order
  // The slot may still be held by a process that is ending or short: begin once it is free.
  bool queue = false;
  std::string owner = {};          // user who submitted the job
  std::uint32_t restarts = 0;      // generations before this one, for TORCHELASTIC_RESTART_COUNT
  std::int64_t array_index = -1;   // of a task of an array; -1: none
  std::uint32_t cores = 0;         // limit of this rank; 0: none
  std::uint64_t memory_bytes = 0;  // limit of this rank; 0: none
  // run: how long the program goes on without a word of the coordinator; 0: for ever.
  std::uint64_t stop_after_ms = 60'000;
  std::string device = {};   // UUID of the slot's device, leased with it; empty: the CPU
  std::string profile = {};  // the job's numerics profile: a rank that has another one refuses

  bool operator==(const StartRank&) const = default;
};
BOOST_DESCRIBE_STRUCT(StartRank, (),
                      (job, generation, process, rank, size, slot, threads, name, kind, spec,
                       folder, start_ms_max, at_once, queue, owner, restarts, array_index, cores,
                       memory_bytes, stop_after_ms,  //
                       device, profile))

// A living process joins the forming of `generation` as `rank` of `size`. It has left its old group
// already, or leaves now.
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

// All are ready: connect, and stand at `base_step`. A rank gets there, in this order of preference:
// it holds that step; it holds the reduced gradients that lead there; `copies` names a peer to
// receive from; `checkpoint` is loaded; at step 0 the state is initialised from the seed.
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
  // Only if it still waits for its slot (StartRank.queue); else nothing happens, and nothing is
  // said.
  bool unless_begun = false;

  bool operator==(const StopRank&) const = default;
};
BOOST_DESCRIBE_STRUCT(StopRank, (), (job, process, grace_ms, reason, unless_begun))

// One file of a checkpoint: name within the folder, size, XXH3-128 in hexadecimal.
struct CheckpointFile {
  std::string name;
  std::uint64_t bytes = 0;
  std::string hash;

  bool operator==(const CheckpointFile&) const = default;
};
BOOST_DESCRIBE_STRUCT(CheckpointFile, (), (name, bytes, hash))

// All parts of step `step` are on disk: write manifest.json into the private folder of this
// generation, sync, rename it to step-N, sync the parent, prune to `keep`. Idempotent.
struct CommitCheckpoint {
  JobId job;
  Generation generation;
  ProcessId process;
  std::uint64_t step = 0;
  std::vector<CheckpointFile> files;
  std::uint32_t keep = 0;             // newest checkpoints to keep; 0: all
  std::vector<std::uint64_t> in_use;  // steps that must not be pruned

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

// Fault injection: send a signal to the process (9 kills, 19 stops, 18 continues). Workers started
// without --faults refuse.
struct SignalRank {
  JobId job;
  ProcessId process;
  std::int32_t signal = 9;

  bool operator==(const SignalRank&) const = default;
};
BOOST_DESCRIBE_STRUCT(SignalRank, (), (job, process, signal))

}  // namespace tutti::wire
