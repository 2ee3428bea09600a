// The shell around ClusterState: it feeds the state machine and performs what it decides.
//
//   frames, HTTP requests, timers, stores --Input--> ClusterState --facts, events--> ledger
//   (synced) --> effects leave
//
// Durable before spoken: a turn handles everything that has come in, then all its facts go to the
// ledger in one transaction, and only then its effects leave, in order. A full disk stops that
// flow, not the jobs: what is pending waits, is tried again every second, and submits are refused
// meanwhile (the state machine answers them). Any other failure of the ledger ends the coordinator,
// whose successor replays what is durable.
//
// Threads: everything on host()'s strand, but open(), which comes before the runtime runs.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "coordinator/cluster/cluster_state.h"
#include "coordinator/ledger/ledger.h"
#include "coordinator/open_port.h"
#include "coordinator/store/job_stores.h"
#include "coordinator/store/notices.h"
#include "protocol/actor/actor_host.h"
#include "protocol/base/result.h"
#include "protocol/transport/endpoint.h"
#include "protocol/transport/liveness.h"
#include "protocol/wire/counters.h"
#include "protocol/wire/frame.h"

namespace tutti::coordinator {

struct ClusterHostOptions {
  std::string host;  // numeric: where workers' links and liveness connections are taken
  PortChoice control;
  PortChoice liveness;
  transport::KeyPair keys;
};

// What the host needs from others and tells them.
struct ClusterHostLinks {
  JobStores* stores = nullptr;
  Notices* notices = nullptr;
  std::function<void(const OpenServing&)> open_serving;
  std::function<void(const CloseServing&)> close_serving;
  std::function<void(const Error&)> on_fatal;  // the coordinator cannot go on
};

class ClusterHost {
 public:
  using Answered = std::function<void(AnswerBody)>;

  ClusterHost(actor::Runtime& runtime, ClusterHostLinks links);
  ~ClusterHost();

  // Listens, replays the ledger and begins. Errors: those of the addresses and of the ledger.
  Result<> open(const ClusterHostOptions& options, ClusterSettings settings,
                std::unique_ptr<Ledger> ledger);
  // No effect leaves any more; the endpoint is closed.
  void close();

  actor::ActorHost& host() { return host_; }

  // `answered` is called once what was decided is durable. The `request` of each is filled in here.
  void submit(SubmitJob input, Answered answered);
  void cancel(CancelJob input, Answered answered);
  void inject(InjectFault input, Answered answered);

  // The state as far as it is durable (unless the disk is full), for reading.
  const ClusterState& settled_state();
  Result<std::vector<Event>> events(const Ledger::EventQuery& query) const {
    return ledger_->events(query);
  }
  Result<std::uint64_t> first_event() const { return ledger_->first_event(); }

  const std::string& control_address() const { return server_->address(); }
  std::uint16_t liveness_port() const { return liveness_->port(); }
  const transport::EndpointCounters& endpoint_counters() const { return server_->counters(); }
  const wire::FrameCounters& frame_counters() const { return frames_; }
  bool ledger_failing() const { return ledger_failing_; }

 private:
  Result<> listen(const ClusterHostOptions& options);
  void handle(Input input);
  void take(Decision decision);
  void flush();
  bool append_pending();
  void rearm();
  void end_with(const Error& error);

  void on_frame(const std::string& peer, const std::string& frame);
  void store_spool(const std::string& peer, SessionId session, wire::SpoolData data);
  void on_stored(const std::string& peer, SessionId session, JobId job,
                 const Result<StoreOutcome>& outcome);
  void send(const std::string& peer, const wire::ToWorker& message, wire::FrameHeader header);

  void perform(const SendToWorker& effect);
  void perform(const WatchSession& effect);
  void perform(const UnwatchSession& effect);
  void perform(const Answer& effect);
  void perform(const MakeJobFolder& effect);
  void perform(const OpenServing& effect) { links_.open_serving(effect); }
  void perform(const CloseServing& effect) { links_.close_serving(effect); }
  void perform(const JobChanged& effect) { links_.notices->publish(effect.job); }
  void perform(const ForgetJob& effect) { links_.stores->forget(effect.job); }

  actor::ActorHost host_;
  ClusterHostLinks links_;
  std::unique_ptr<Ledger> ledger_;
  std::unique_ptr<ClusterState> state_;
  std::unique_ptr<transport::ServerEndpoint> server_;
  std::unique_ptr<transport::LivenessListener> liveness_;
  wire::FrameCounters frames_;

  std::vector<Fact> facts_;  // pending: decided, not durable
  std::vector<Event> events_;
  std::vector<Effect> effects_;  // leave after them
  std::uint64_t decided_ = 0;    // number of the newest decision
  std::uint64_t durable_ = 0;    // and of the newest durable one
  bool flush_due_ = false;       // a flush has been posted
  bool ledger_failing_ = false;
  bool closed_ = false;
  actor::TimerId tick_ = 0;

  std::uint64_t last_request_ = 0;
  std::map<RequestId, Answered> waiting_;
  std::map<std::string, SessionId> session_of_token_;
  std::map<SessionId, std::string> token_of_session_;
  std::set<JobId> spools_failing_;
};

}  // namespace tutti::coordinator
