// The shell around ClusterState: it feeds the state machine and performs what it decides.
//
//   frames, HTTP requests, timers, stores --Input--> ClusterState --facts, events--> ledger
//   (synced) --> effects leave
//
// Durable before spoken: a turn handles everything that has come in, then all its facts go to the
// ledger in one transaction, and only then its effects leave, in order. A full disk stops that
// flow, not the jobs: what is pending waits, is tried again (kLedgerRetryMin to kLedgerRetryMax),
// and submits are refused meanwhile (the state machine answers them); of a job that ends then,
// readers are shown that it is stopping (pending_ends.h). Any other failure of the ledger ends the
// coordinator, whose successor replays what is durable.
//
// Who asked for a change is journalled with it: a caller that names an action gets a line of audit
// in the same transaction. What cannot be answered for want of disk space is answered after
// answer_within with an error that says so. Who loses access loses it at once, durable or not.
//
// Threads: everything on host()'s strand, but open(), which comes before the runtime runs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "coordinator/access/access_table.h"
#include "coordinator/cluster/cluster_state.h"
#include "coordinator/cluster_meter.h"
#include "coordinator/ledger/ledger.h"
#include "coordinator/ledger/snapshot_pace.h"
#include "coordinator/metrics/histogram.h"
#include "coordinator/open_port.h"
#include "coordinator/pending_ends.h"
#include "coordinator/replaced_keys.h"
#include "coordinator/store/job_stores.h"
#include "coordinator/store/notices.h"
#include "protocol/actor/actor_host.h"
#include "protocol/base/result.h"
#include "protocol/transport/endpoint.h"
#include "protocol/transport/liveness.h"
#include "protocol/wire/counters.h"
#include "protocol/wire/frame.h"
#include "protocol/wire/worker_messages.h"

namespace tutti::coordinator {

struct ClusterHostOptions {
  std::string host;  // numeric: where workers' links and liveness connections are taken
  PortChoice control;
  PortChoice liveness;
  transport::KeyPair keys;                    // of those who join now
  std::optional<ReplacedKeys> replaced = {};  // of a rotation whose overlap may not be over
  // What waits for the ledger's full disk is answered so long after it was asked for.
  Duration answer_within = std::chrono::seconds(10);
  // Keys of workers that are forgotten, the newest, so that one that comes back late needs no join
  // token. Each change of access reads all keys.
  std::size_t forgotten_keys_max = 1'000;
};

// What the host needs from others and tells them.
struct ClusterHostLinks {
  JobStores* stores = nullptr;
  Notices* notices = nullptr;
  AccessTable* access = nullptr;
  std::function<void(const OpenServing&)> open_serving;
  std::function<void(const CloseServing&)> close_serving;
  std::function<void(const Error&)> on_fatal;                // the coordinator cannot go on
  std::function<void(std::uint64_t token)> on_revoked = {};  // it is good no more
  // For rotate_keys: keeps the new ones, and those of before until they are forgotten; tells those
  // who join where to.
  std::function<Result<>(const transport::KeyPair& keys, const ReplacedKeys& replaced)>
      replace_keys = {};
  std::function<void()> forget_replaced_keys = {};
  std::function<Result<>(const transport::KeyPair& keys, std::uint16_t control_port)>
      announce_keys = {};
};

struct HostCounters {
  std::uint64_t syncs = 0;  // of the ledger
  std::uint64_t facts = 0;  // made durable
  std::uint64_t decisions = 0;
  std::uint64_t snapshots = 0;
  Histogram sync_seconds{0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1};
  Histogram decision_seconds{0.00001, 0.00003, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.1};
  Histogram snapshot_seconds{0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3};
  Histogram checkpoint_seconds{0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3};
  Histogram lag_seconds{0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3};
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

  // `answered` is called once what was decided is durable. The input's `request` is filled in here.
  void ask(Input input, Caller caller, Answered answered);
  // The change takes effect, and `answered` is called, once it is durable; a removal takes effect
  // at once.
  void change_access(AccessChange change, const Caller& caller, Answered answered);
  // Somebody was refused for want of a role: a line of audit, of so many a minute.
  void note_denied(Caller caller);
  // New CURVE keys at once, on a port beside the old one. Who is connected learns them by his
  // heartbeats; after `overlap` the old ones are good no more (and, if the port was asked for, the
  // new ones are on it). A coordinator that starts anew meanwhile goes on with it. Errors:
  // already_exists while one goes on.
  void rotate_keys(Duration overlap, const Caller& caller, Answered answered);
  // Copies the ledger into the file; `done` is called when it is whole.
  void back_up(const std::filesystem::path& file, std::function<void(Result<>)> done);

  // In force from the next decision on.
  void set_quotas(scheduler::Quotas quotas, const Caller& caller);

  // What readers are shown; an end only once it is durable.
  JobPage jobs(JobFilter filter);
  std::optional<JobDetail> job(JobId job);
  std::vector<TaskView> tasks(JobId array);
  std::optional<Explanation> explain(JobId job);
  Durable::Counts job_counts();

  // The state as far as it is durable, or as it is decided while the disk is full: for what is not
  // of a job's end.
  const ClusterState& settled_state();
  const Ledger& ledger() const { return *ledger_; }
  AccessTable& access() { return *links_.access; }

  const std::string& control_address() const { return control_address_; }
  std::uint16_t liveness_port() const { return liveness_->port(); }
  const transport::EndpointCounters& endpoint_counters() const { return server_->counters(); }
  const wire::FrameCounters& frame_counters() const { return frames_; }
  const HostCounters& counters() const { return counters_; }
  const ClusterMeter& meter() const { return meter_; }
  bool ledger_failing() const { return ledger_failing_; }

 private:
  struct Waiting {
    Answered answered;
    Caller caller;
    Instant since;
  };

  // Of a change that was not decided by the state machine.
  struct Afterwards {
    Answered answered;        // empty: it was
    std::string expels = {};  // a worker whose key it removes
    bool revokes = false;
    Instant since;
  };

  void sweep();
  Result<> listen(const ClusterHostOptions& options);
  void note_changes(const std::vector<Effect>& effects);
  void note_own_changes(const Decision& decision);
  void unsay_withdrawn(const Decision& decision);
  void note_change(const Caller& caller, std::string target);
  void give_up_waiting();
  void flush_soon();
  void apply_access();
  void expire_tokens();
  void admit(wire::Hello& hello);
  void drop_forgotten_key();
  std::string address_on(std::uint16_t port) const;
  Result<> listen_for_workers();
  Result<std::unique_ptr<transport::ServerEndpoint>> open_server(PortChoice port,
                                                                 const transport::KeyPair& keys);
  bool resume_overlap();
  void move_to(const std::string& address);
  void announce();
  void end_overlap(Duration overlap);
  void return_to_port(Duration overlap, int tries);
  void step_backup();
  void handle(Input input);
  void take(Decision decision);
  void flush();
  void end_turn();
  bool append_pending();
  void write_snapshot();
  void tend_soon();
  void tend_ledger();
  void measure_lag();
  void perform_all(const std::vector<Effect>& effects);
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
  void perform(const OpenServing& effect) { links_.open_serving(effect); }
  void perform(const CloseServing& effect) { links_.close_serving(effect); }
  void perform(const JobChanged& effect) { links_.notices->publish(effect.job); }
  void perform(const ForgetJob& effect);

  actor::ActorHost host_;
  ClusterHostLinks links_;
  std::unique_ptr<Ledger> ledger_;
  std::unique_ptr<ClusterState> state_;
  std::unique_ptr<transport::ServerEndpoint> server_;
  std::unique_ptr<transport::LivenessListener> liveness_;
  wire::FrameCounters frames_;

  std::vector<Fact> facts_;  // pending: decided, not durable
  std::vector<Event> events_;
  std::vector<AccessChange> access_;
  std::vector<AuditRecord> audit_;
  std::vector<Effect> effects_;         // leave after them
  std::vector<Afterwards> afterwards_;  // the same, for access
  std::uint64_t decided_ = 0;           // number of the newest decision
  std::uint64_t durable_ = 0;           // and of the newest durable one
  bool flush_due_ = false;              // a flush has been posted
  bool snapshot_due_ = false;           // a snapshot has been posted
  bool urgent_ = false;                 // somebody waits for what is pending
  Instant flushed_at_;
  actor::TimerId gather_ = 0;
  bool ledger_failing_ = false;
  PendingEnds pending_ends_;  // while it is
  actor::TimerId tend_ = 0;   // until nobody waits
  bool tend_due_ = false;     // in the next turn
  bool tend_failed_ = false;
  SnapshotPace snapshots_;
  bool closed_ = false;
  actor::TimerId tick_ = 0;
  Instant tick_due_;

  std::uint64_t last_request_ = 0;
  std::map<RequestId, Waiting> waiting_;
  std::uint64_t last_audit_ = 0;  // durable
  Instant denied_since_;
  std::uint32_t denied_ = 0;         // since then, written into the audit or not
  std::uint64_t denied_unsaid_ = 0;  // not written
  ClusterHostOptions options_;
  std::string join_token_;       // of the state folder
  std::string control_address_;  // where those who join now connect
  std::string old_address_;      // given up at the end of the overlap; empty: there is none
  bool rotating_ = false;        // until all is as the configuration has it
  actor::TimerId announce_ = 0;
  wire::HeartbeatAnswered next_connection_;
  actor::TimerId expiry_ = 0;
  std::unique_ptr<LedgerBackup> backup_;
  std::function<void(Result<>)> backup_done_;
  HostCounters counters_;
  ClusterMeter meter_;
  std::map<std::string, SessionId> session_of_token_;
  std::map<SessionId, std::string> token_of_session_;
  std::set<JobId> spools_failing_;
};

}  // namespace tutti::coordinator
