// What a worker knows, as values that survive in the journal of nobody: handed from one binary to
// the next in the same process (handover.h), encoded by the wire codec, so that fields may be
// added.
//
// Ownership: plain values. Times are this machine's monotonic clock, which goes on over an exec.
#pragma once

#include <boost/describe/class.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "protocol/base/clock.h"
#include "protocol/base/ids.h"
#include "protocol/wire/worker_messages.h"

namespace tutti::worker {

// One process that this worker was told to start.
struct SavedProcess {
  wire::StartRank start;
  wire::ProcessState state;
  bool program = false;  // of kind run
  bool launched = false;
  bool gone = false;  // its exit was reported
  bool stop_ordered = false;
  Generation group_sent;                    // the last whose FormGroup was passed on
  std::optional<wire::RankReady> ready;     // of the current generation
  std::optional<wire::GroupFormed> formed;  // of the current generation
  wire::RankFinished finished;              // its process is 0 until it is said
  std::optional<Instant> start_deadline;
  std::optional<Instant> kill_at;
  wire::FailureClass failure = wire::FailureClass::none;  // why this worker ends it, if it does
  std::string reason;
  std::optional<Instant> launched_at;

  bool operator==(const SavedProcess&) const = default;
};
BOOST_DESCRIBE_STRUCT(SavedProcess, (),
                      (start, state, program, launched, gone, stop_ordered, group_sent, ready,
                       formed, finished, start_deadline, kill_at, failure, reason, launched_at))

struct SavedStream {
  std::uint64_t size = 0;
  std::uint64_t acked = 0;
  bool done = false;

  bool operator==(const SavedStream&) const = default;
};
BOOST_DESCRIBE_STRUCT(SavedStream, (), (size, acked, done))

// What a process wrote, as far as the coordinator does not hold it.
struct SavedSpool {
  JobId job;
  Generation generation;
  ProcessId process;
  std::uint32_t rank = 0;
  SavedStream log;
  SavedStream steps;
  bool ended = false;
  bool cut = false;

  bool operator==(const SavedSpool&) const = default;
};
BOOST_DESCRIBE_STRUCT(SavedSpool, (), (job, generation, process, rank, log, steps, ended, cut))

struct SavedState {
  std::uint64_t greeting = 0;
  Instant answered_at;
  std::vector<SavedProcess> processes;
  std::vector<ProcessId> ended;  // oldest first
  std::vector<SavedSpool> spools;
  std::vector<std::string> reports;  // frames, unacknowledged

  bool operator==(const SavedState&) const = default;
};
BOOST_DESCRIBE_STRUCT(SavedState, (), (greeting, answered_at, processes, ended, spools, reports))

}  // namespace tutti::worker
