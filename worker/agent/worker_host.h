// The shell around WorkerState: performs its effects with real sockets, processes and files, and
// feeds what happens back.
//
// One strand on the main thread does everything; only it forks. Inputs that arise while effects are
// performed wait in a queue, so that the state is never entered twice.
//
// Ownership: made before the runtime runs, destroyed after it has stopped. Living processes are
// killed with it.
#pragma once

#include <deque>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "protocol/actor/actor_host.h"
#include "protocol/transport/endpoint.h"
#include "protocol/transport/liveness.h"
#include "protocol/wire/counters.h"
#include "worker/agent/join.h"
#include "worker/agent/rank_process.h"
#include "worker/agent/spool.h"
#include "worker/agent/worker_state.h"
#include "worker/launcher/process_plan.h"

namespace tutti::worker {

struct HostSettings {
  WorkerSettings worker;
  PlanSettings plan;
  std::filesystem::path spools;                   // folder
  std::filesystem::path join;                     // join.json
  Duration join_wait = std::chrono::seconds(60);  // for join.json to appear, at first
  transport::KeyPair keys = {};        // this worker's: known to the coordinator once it was let in
  std::filesystem::path learned = {};  // where the coordinator's newest key and port are kept
};

class WorkerHost {
 public:
  WorkerHost(actor::Runtime& runtime, HostSettings settings);
  WorkerHost(const WorkerHost&) = delete;
  WorkerHost& operator=(const WorkerHost&) = delete;
  ~WorkerHost();

  // Begins; the runtime is stopped when the worker has ended.
  void start();
  // The worker is to end. Any thread.
  void stop();

  int exit_code() const { return quit_.exit_code; }
  const std::string& message() const { return quit_.message; }

 private:
  void feed(Input input);
  void tick();
  void open_connection();
  void connect(const JoinInfo& join);
  void drop_connection();
  void on_coordinator_frame(const std::string& bytes);
  void learn(const wire::HeartbeatAnswered& answer);
  void on_rank_frame(ProcessId process, const std::string& bytes);
  void adopt_spools();
  Result<LaunchPlan> plan(const StartProcess& effect) const;
  RankProcess::Handlers handlers_of(ProcessId process);
  Spool& spool_of(const SpoolOwner& owner);
  void finish_spool(ProcessId process);
  void append(ProcessId process, wire::Stream stream, std::string_view bytes);

  void perform(const SendToCoordinator& effect);
  void perform(const SendToRank& effect);
  void perform(const ReserveAddress& effect);
  void perform(const StartProcess& effect);
  void perform(const SignalProcess& effect);
  void perform(const ReleaseProcess& effect);
  void perform(const AppendSpool& effect);
  void perform(const ReadSpool& effect);
  void perform(const TruncateSpool& effect);
  void perform(const ConnectLiveness& effect);
  void perform(const Reconnect& effect);
  void perform(const Note& effect);
  void perform(const Quit& effect);

  actor::Runtime& runtime_;
  actor::ActorHost host_;
  HostSettings settings_;
  WorkerState state_;
  std::deque<Input> inputs_;
  bool feeding_ = false;
  Instant join_until_;
  bool joined_once_ = false;  // join.json has been read
  std::optional<JoinInfo> join_;
  std::uint64_t connections_ = 0;
  actor::TimerId reconnect_timer_ = 0;
  std::unique_ptr<transport::ClientEndpoint> endpoint_;
  std::unique_ptr<transport::LivenessConnection> liveness_;
  wire::FrameCounters coordinator_frames_;
  wire::FrameCounters rank_frames_;
  std::map<ProcessId, Spool> spools_;
  std::map<ProcessId, ReservedAddress> addresses_;
  std::map<ProcessId, std::unique_ptr<RankProcess>> processes_;
  Quit quit_;
};

}  // namespace tutti::worker
