// Everything the coordinator's state machine can be told and everything it can do.
//
// One actor decides about membership, gangs and job life together. Its host (cluster_host.h) and
// the simulator keep these rules:
//   - Each input comes in an Envelope, with the time and fresh randomness, one by one.
//   - A Decision's facts and events are synced before its effects leave, in order; several
//     Decisions may share one append. `immediate` effects need no sync.
//   - If an append fails for want of space, its facts stay pending, its effects wait, and
//     LedgerFailed is told at once. All that is pending is then appended again in ONE transaction;
//     after it LedgerRecovered. On any other failure the coordinator ends: what is durable is
//     replayed.
//   - A request is answered once: a second Answer is dropped (of a submit that was taken back).
//   - SpoolData does not come here. The host checks it by owns_session, stores it, answers
//     SpoolAcked itself, and tells StepsRecorded, StepHashMismatch and SpoolFailed.
//
// Ownership: plain values.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "coordinator/cluster/cluster_facts.h"
#include "coordinator/scheduler/quotas.h"
#include "protocol/base/clock.h"
#include "protocol/base/error.h"
#include "protocol/base/ids.h"
#include "protocol/spec/job_spec.h"
#include "protocol/wire/worker_messages.h"

namespace tutti::coordinator {

// Whom an Answer goes to: chosen by the host, unique among those that are open.
using RequestId = Id<struct RequestTag>;

// Inputs
// ---------------------------------------------------------------------------------------------

struct SubmitJob {
  RequestId request;
  std::string key;     // empty: none; the same key and spec again give the same job (I2)
  std::string owner;   // user
  std::string yaml;    // resolved spec, as to_yaml writes it
  spec::JobSpec spec;  // its value
};

// With `save`, a training job finishes its step and leaves a checkpoint before it ends, within
// ClusterSettings::notice.
struct CancelJob {
  RequestId request;
  JobId job;
  std::string reason;
  bool save = false;
};

// What users may have at a time, from the configuration that was read again.
struct SetQuotas {
  RequestId request;
  scheduler::Quotas quotas;
};

// The node gets no new work and is empty by the deadline (I16): training jobs save and queue again,
// serve jobs move first. Answered at once; said again, it replaces reason and deadline.
struct DrainNode {
  RequestId request;
  std::string node;
  std::string reason;
  std::uint64_t deadline_ms = 0;  // from now; 0: ClusterSettings::drain
};

// Lifts a drain and a quarantine, and forgets the node's score.
struct UndrainNode {
  RequestId request;
  std::string node;
};

// Of a rank: its signals. Of a worker (named by `worker`): SIGKILL, a cut of its control plane for
// `lasts_ms`, its end (heal), and writes to its spools that take `delay_ms` each.
enum class FaultAction { kill_rank, stop_rank, continue_rank, kill_worker, cut, heal, slow_disk };

// Answered by permission_denied unless the cluster was started with --faults.
struct InjectFault {
  RequestId request;
  FaultAction action = FaultAction::kill_rank;
  JobId job;
  std::uint32_t rank = 0;
  std::string worker = {};
  std::uint64_t lasts_ms = 0;
  std::uint64_t delay_ms = 0;
};

// A decoded frame, with what its header says. `peer` is the transport's routing id.
struct WorkerFrame {
  std::string peer;
  SessionId session;
  Sequence sequence;
  wire::FromWorker message;
};

// A numbered frame that this version does not understand (untaken.h): its number is taken.
struct UnknownReport {
  std::string peer;
  SessionId session;
  Sequence sequence;
};

// The liveness connection that showed this session's token has ended.
struct WorkerDisconnected {
  SessionId session;
};

// The worker's key was revoked: its session ends at once, and it is told why.
struct ExpelWorker {
  std::string worker;
};

// New step records of a job are in its store, up to this step.
struct StepsRecorded {
  JobId job;
  std::uint64_t step = 0;
};

// Two records of one step have different hashes; fails the job as our own error.
struct StepHashMismatch {
  JobId job;
  std::uint64_t step = 0;
  std::string message;
};

// Log or step records cannot be stored (disk full): told once per episode and job.
struct SpoolFailed {
  JobId job;
  std::string message;
};

// Facts of Decisions above this number are not durable. Submits among them are taken back.
struct LedgerFailed {
  std::uint64_t durable_through = 0;
  std::string message;
};

struct LedgerRecovered {};

// The time of ClusterState::next_due has come (or earlier: harmless).
struct Tick {};

using Input = std::variant<SubmitJob,           //
                           CancelJob,           //
                           InjectFault,         //
                           WorkerFrame,         //
                           UnknownReport,       //
                           WorkerDisconnected,  //
                           StepsRecorded,       //
                           StepHashMismatch,    //
                           SpoolFailed,         //
                           LedgerFailed,        //
                           LedgerRecovered,     //
                           Tick,                //
                           DrainNode,           //
                           UndrainNode,         //
                           ExpelWorker,         //
                           SetQuotas>;

struct Envelope {
  Instant now;
  WallTime wall;
  std::string
      random;  // 32 or more fresh hexadecimal digits; secrets and session numbers come from it
  Input input;
  // Decisions up to this number are durable. A submit is not placed before it is, so that it can be
  // taken back.
  std::uint64_t durable_through = UINT64_MAX;
};

// Effects
// --------------------------------------------------------------------------------------------

struct SendToWorker {
  std::string peer;
  SessionId session;
  Generation generation;  // for the header
  Sequence sequence;      // 0: not an order
  wire::ToWorker message;

  bool operator==(const SendToWorker&) const = default;
};

// From now on a liveness connection that shows the token belongs to the session; its end is told.
struct WatchSession {
  SessionId session;
  std::string token;

  bool operator==(const WatchSession&) const = default;
};

struct UnwatchSession {
  SessionId session;

  bool operator==(const UnwatchSession&) const = default;
};

struct JobAccepted {
  JobId job;
  bool existing = false;    // the key was known
  std::string notice = {};  // it will wait, and for what: it needs more than the cluster has

  bool operator==(const JobAccepted&) const = default;
};

struct Done {
  bool operator==(const Done&) const = default;
};

using AnswerBody = std::variant<Done, JobAccepted, Error>;

struct Answer {
  RequestId request;
  AnswerBody body;

  bool operator==(const Answer&) const = default;
};

// For the gateway: where a serve job takes requests, and that it does not any more.
struct OpenServing {
  JobId job;
  std::string model;
  std::string endpoint;
  std::string key;

  bool operator==(const OpenServing&) const = default;
};

struct CloseServing {
  JobId job;

  bool operator==(const CloseServing&) const = default;
};

// Something about the job that readers may wait for has changed.
struct JobChanged {
  JobId job;

  bool operator==(const JobChanged&) const = default;
};

// The job left the history: its stored logs and step records can be removed, and its folder if it
// is empty.
struct ForgetJob {
  JobId job;
  std::uint32_t tasks = 0;  // of an array: the jobs after it, too

  bool operator==(const ForgetJob&) const = default;
};

using Effect = std::variant<SendToWorker, WatchSession, UnwatchSession, Answer, OpenServing,
                            CloseServing, JobChanged, ForgetJob>;

struct Decision {
  std::uint64_t number = 0;  // counts decisions that have facts or events; 0: this one has none
  std::vector<Fact> facts;
  std::vector<Event> events;
  std::vector<Effect> effects;    // after the sync, in order
  std::vector<Effect> immediate;  // at once
};

}  // namespace tutti::coordinator
