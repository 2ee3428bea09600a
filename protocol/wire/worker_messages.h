// What the coordinator and a worker tell each other, over the control plane.
//
//   worker                         coordinator
//     Hello (who, what runs)     ->
//                                <-  Welcome (session): frames of another session are dropped now
//                                <-  order 1, order 2, ... resent until acknowledged, done once
//     OrdersAcked(2)             ->
//     report 1, report 2, ...    ->  the same the other way
//                                <-  ReportsAcked(2)
//     Heartbeat                  ->  each refreshes the lease
//                                <-  HeartbeatAnswered
//     SpoolData                  ->  logs and step records: one chunk a stream in flight
//                                <-  SpoolAcked: after it was synced
//
// Orders and reports carry their number in the frame's `sequence` (frame.h), counted from 1 in each
// session; other frames carry 0 and may be lost. Numbering starts anew with a session: the
// coordinator derives its orders again from what it wants and what Hello says; the worker sends its
// unacknowledged reports again. Both are idempotent.
#pragma once

#include <boost/describe/class.hpp>
#include <boost/describe/enum.hpp>

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "protocol/base/ids.h"
#include "protocol/wire/device_state.h"
#include "protocol/wire/rank_messages.h"

namespace tutti::wire {

// A process has begun.
struct RankStarted {
  JobId job;
  Generation generation;
  ProcessId process;
  std::int64_t pid = 0;
  std::string limits = {};  // what holds it: "cgroup2: memory 2 GiB", "rlimit: ..."; empty: nothing

  bool operator==(const RankStarted&) const = default;
};
BOOST_DESCRIBE_STRUCT(RankStarted, (), (job, generation, process, pid, limits))

inline constexpr std::size_t kLogTailBytes = 4'096;

// A process is gone and reaped: its slot is free. One of `code` and `signal` is set, or `error` if
// it never began.
struct RankExited {
  JobId job;
  Generation generation;
  ProcessId process;
  std::int32_t code = 0;
  std::int32_t signal = 0;
  bool ordered = false;                       // by StopRank; not by a fault or from elsewhere
  FailureClass failure = FailureClass::none;  // the worker's judgement
  std::string error;                          // one line for people
  std::int64_t seen_unix_ms = 0;
  bool began = false;                   // its program was executed
  bool out_of_memory = false;           // ended by the kernel for want of memory
  std::uint64_t memory_peak_bytes = 0;  // resident, of it and what it started; 0: not known
  std::uint64_t cpu_ms = 0;             // user and system, the same
  std::string log_tail = {};  // of one that ended badly: the last kLogTailBytes of its log
  bool silent = false;  // it wrote nothing and has no step records: no stream of it will be sent
  std::uint64_t ran_us = 0;  // from the order to launch it to its end; 0: not known

  bool operator==(const RankExited&) const = default;
};
BOOST_DESCRIBE_STRUCT(RankExited, (),
                      (job, generation, process, code, signal, ordered, failure, error,
                       seen_unix_ms, began, out_of_memory, memory_peak_bytes, cpu_ms, log_tail,
                       silent, ran_us))

BOOST_DEFINE_ENUM_CLASS(ProcessPhase, starting, ready, formed, broken, finished, stopping)

// One living process as the worker sees it, enough for a restarted coordinator to go on with it.
struct ProcessState {
  JobId job;
  Generation generation;  // the newest that it was ordered into
  ProcessId process;
  std::uint32_t rank = 0;
  std::uint32_t size = 0;
  std::uint32_t slot = 0;
  std::int64_t pid = 0;
  ProcessPhase phase = ProcessPhase::starting;
  std::string address;  // of the last RankReady
  HeldState held;       // of the last RankReady or GenerationBroken
  GroupFormed formed;   // of the last GroupFormed, for serving
  RankProgress progress;
  std::string limits = {};  // as in RankStarted

  bool operator==(const ProcessState&) const = default;
};
BOOST_DESCRIBE_STRUCT(ProcessState, (),
                      (job, generation, process, rank, size, slot, pid, phase, address, held,
                       formed, progress, limits))

struct Hello {
  std::string worker;       // its name, unique in the cluster
  std::string incarnation;  // of this worker process, random
  std::string boot_id;      // of the machine
  std::string host;
  std::string version;  // of Tutti
  std::uint32_t slots = 0;
  std::uint32_t cores = 0;
  std::uint64_t memory_bytes = 0;
  std::string cpu;                    // model name
  std::vector<std::string> profiles;  // numerics profiles it can run: portable, ...
  bool runs_programs = true;          // whether kind `run` is allowed here
  bool faults = false;                // whether SignalRank is obeyed
  std::string join_token;
  std::vector<ProcessState> processes;
  std::vector<RankExited> exits;  // not acknowledged yet
  // Counts the Hellos of this incarnation, so that one which was overtaken by a newer one, or
  // answered already, is known to be old. 0: not counted.
  std::uint64_t greeting = 0;
  std::vector<std::string> labels = {};  // key=value
  std::string limits = {};               // how ranks are held to theirs: cgroup2 | cgroup1 | rlimit
  std::uint64_t reports = 0;             // not acknowledged yet: they follow, numbered from 1
  std::vector<DeviceState> devices = {};  // by slot; empty: its ranks compute on the CPU
  std::string device_stack = {};          // what they are driven by: versions, for people
  // What its devices exchange by, alike for the ranks of a group: "nccl-2.27.3 cuda-13.0
  // driver-13.1" (the CUDA that the driver knows). Empty: they have nothing of the kind.
  std::string exchange = {};

  bool operator==(const Hello&) const = default;
};
BOOST_DESCRIBE_STRUCT(Hello, (),
                      (worker, incarnation, boot_id, host, version, slots, cores, memory_bytes, cpu,
                       profiles, runs_programs, faults, join_token, processes, exits, greeting,
                       labels, limits, reports,  //
                       devices, device_stack, exchange))

struct Welcome {
  SessionId session;
  std::uint32_t heartbeat_ms = 500;
  std::uint32_t lease_ms = 5'000;
  std::uint16_t liveness_port = 0;  // connect here and write liveness_token and a line break; the
                                    // end of that connection means lost
  std::string liveness_token;
  std::uint64_t greeting = 0;  // of the Hello that this answers; a worker ignores others
  bool knows_silence = false;  // RankExited.silent stands for the end of both streams

  bool operator==(const Welcome&) const = default;
};
BOOST_DESCRIBE_STRUCT(Welcome, (),
                      (session, heartbeat_ms, lease_ms, liveness_port, liveness_token, greeting,
                       knows_silence))

// The worker is not admitted, and why; it says so and ends (permission_denied, unsupported) or
// tries again (unavailable).
struct Refused {
  std::string code;
  std::string message;

  bool operator==(const Refused&) const = default;
};
BOOST_DESCRIBE_STRUCT(Refused, (), (code, message))

// The worker was told to stop (SIGTERM) and will, `deadline_ms` from now at the latest: what it
// runs is moved away like in a drain, without new work coming in. It ends sooner once it is empty.
struct WorkerLeaving {
  std::uint64_t deadline_ms = 0;
  std::string reason;

  bool operator==(const WorkerLeaving&) const = default;
};
BOOST_DESCRIBE_STRUCT(WorkerLeaving, (), (deadline_ms, reason))

struct Heartbeat {
  std::vector<RankProgress> progress;
  std::vector<DeviceReading> readings = {};  // of all its devices; empty: as they were
  std::string restart_refused = {};  // once: why it was told to restart in place and did not

  bool operator==(const Heartbeat&) const = default;
};
BOOST_DESCRIBE_STRUCT(Heartbeat, (), (progress, readings, restart_refused))

// After a rotation of keys it says where to connect the next time: a worker keeps that, so that it
// still finds its coordinator once the old key is gone.
struct HeartbeatAnswered {
  std::uint16_t control_port = 0;  // 0: as before
  std::string server_key = {};

  bool operator==(const HeartbeatAnswered&) const = default;
};
BOOST_DESCRIBE_STRUCT(HeartbeatAnswered, (), (control_port, server_key))

// All orders (reports) of this session up to `through` have been taken.
struct OrdersAcked {
  Sequence through;

  bool operator==(const OrdersAcked&) const = default;
};
BOOST_DESCRIBE_STRUCT(OrdersAcked, (), (through))

struct ReportsAcked {
  Sequence through;

  bool operator==(const ReportsAcked&) const = default;
};
BOOST_DESCRIBE_STRUCT(ReportsAcked, (), (through))

BOOST_DEFINE_ENUM_CLASS(Stream, log, steps)

// Bytes [offset, offset + size) of one process's spool. Steps are whole lines; log is raw output,
// both streams mixed.
struct SpoolData {
  JobId job;
  Generation generation;  // the process's first
  ProcessId process;
  std::uint32_t rank = 0;
  Stream stream = Stream::log;
  std::uint64_t offset = 0;
  std::string bytes;
  bool end = false;  // nothing follows: the process is gone and this is the last of it
  // Of a log, with its end: the machine went down, and what was written last may be missing.
  bool cut = false;

  bool operator==(const SpoolData&) const = default;
};
BOOST_DESCRIBE_STRUCT(SpoolData, (),
                      (job, generation, process, rank, stream, offset, bytes, end, cut))

// The coordinator holds the stream up to `offset` on disk; the worker goes on from there and may
// drop what is before.
struct SpoolAcked {
  ProcessId process;
  Stream stream = Stream::log;
  std::uint64_t offset = 0;
  bool end = false;  // the end is known too: the spool can be removed

  bool operator==(const SpoolAcked&) const = default;
};
BOOST_DESCRIBE_STRUCT(SpoolAcked, (), (process, stream, offset, end))

BOOST_DEFINE_ENUM_CLASS(WorkerFault, kill, cut, slow_disk)

// Fault injection: end the worker by SIGKILL, drop all it says and hears for `lasts_ms`, or make
// each write to its spools take `delay_ms` for `lasts_ms`. A later one of the same kind replaces
// the one before (`lasts_ms` 0 heals). Workers started without --faults refuse.
struct BreakWorker {
  WorkerFault fault = WorkerFault::kill;
  std::uint64_t lasts_ms = 0;
  std::uint64_t delay_ms = 0;

  bool operator==(const BreakWorker&) const = default;
};
BOOST_DESCRIBE_STRUCT(BreakWorker, (), (fault, lasts_ms, delay_ms))

using Order = std::variant<StartRank, Regroup, FormGroup, AbortGeneration, StopRank,
                           CommitCheckpoint, SetFlags, SignalRank, BreakWorker>;
using Report = std::variant<RankStarted, RankReady, GroupFormed, GenerationBroken, FirstStepDone,
                            CheckpointPart, CheckpointCommitted, RankFinished, RankExited,  //
                            WorkerLeaving>;

using ToWorker = std::variant<Welcome, Refused, HeartbeatAnswered, ReportsAcked, SpoolAcked,  //
                              StartRank, Regroup, FormGroup, AbortGeneration, StopRank,
                              CommitCheckpoint, SetFlags, SignalRank, BreakWorker>;
using FromWorker =
    std::variant<Hello, Heartbeat, OrdersAcked, SpoolData,  //
                 RankStarted, RankReady, GroupFormed, GenerationBroken, FirstStepDone,
                 CheckpointPart, CheckpointCommitted, RankFinished, RankExited,  //
                 WorkerLeaving>;

}  // namespace tutti::wire
