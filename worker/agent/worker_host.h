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
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "protocol/actor/actor_host.h"
#include "protocol/transport/endpoint.h"
#include "protocol/transport/liveness.h"
#include "protocol/wire/counters.h"
#include "worker/agent/handover.h"
#include "worker/agent/join.h"
#include "worker/agent/rank_process.h"
#include "worker/agent/spool.h"
#include "worker/agent/worker_state.h"
#include "worker/inventory/cores.h"
#include "worker/inventory/gpu_watch.h"
#include "worker/launcher/core_share.h"
#include "worker/launcher/job_folders.h"
#include "worker/launcher/path_scout.h"
#include "worker/launcher/process_plan.h"

namespace tutti::worker {

struct HostSettings {
  WorkerSettings worker;
  PlanSettings plan;
  CgroupRoots cgroups;                            // where limits may be set
  RankCores cores;                                // that ranks are given
  std::filesystem::path spools;                   // folder
  std::filesystem::path join;                     // join.json
  Duration join_wait = std::chrono::seconds(60);  // for join.json to appear, at first
  std::optional<RankDevices> devices = {};        // handed to the next binary
  transport::KeyPair keys = {};  // this worker's: known to the coordinator once it was let in
  std::filesystem::path measured_links = {};  // inventory/measured_links.h
  std::filesystem::path learned = {};  // where the coordinator's newest key and port are kept
};

// A start whose program and folder are being looked at. What is meant for it meanwhile waits.
struct StartingProcess {
  StartProcess effect;
  LaunchPlan plan;
  std::uint64_t ticket = 0;
  std::vector<std::string> frames;
};

class WorkerHost {
 public:
  WorkerHost(actor::Runtime& runtime, HostSettings settings);
  WorkerHost(const WorkerHost&) = delete;
  WorkerHost& operator=(const WorkerHost&) = delete;
  ~WorkerHost();

  // Begins; the runtime is stopped when the worker has ended.
  void start();
  // The worker is to end; a second time: at once. Any thread.
  void stop();

  // Before start: goes on with what an earlier binary handed over.
  void restore(Handover handover);
  // Calls `exec` with what the next binary needs, once nothing is half done; it returns only if it
  // failed, and then all goes on, and `refused` is told why. Any thread.
  struct Successor {
    std::function<Error(Handover handover)> exec;
    std::function<void(const Error& reason)> refused;
  };
  void hand_over(Successor successor);

  int exit_code() const { return quit_.exit_code; }
  const std::string& message() const { return quit_.message; }

 private:
  void feed(Input input);
  void tick();
  void open_connection();
  void connect(const JoinInfo& join);
  void on_connected();
  void drop_connection();
  void on_coordinator_frame(const std::string& bytes);
  void learn(const wire::HeartbeatAnswered& answer);
  bool keep(const Learned& learned);
  void on_rank_frame(ProcessId process, const std::string& bytes);
  void adopt_spools();
  void watch_devices();
  void try_hand_over(const Successor& successor, Instant until);
  bool signals_wait();
  void keep_on(const Successor& successor, const Error& reason);
  std::optional<Handover> handover() const;

  // worker_processes.cc
  Result<LaunchPlan> plan(const StartProcess& effect);
  PathScout::Question question_of(const StartProcess& effect, const LaunchPlan& plan) const;
  void scout(ProcessId process, PathScout::Question question);
  void on_scouted(ProcessId process, std::uint64_t ticket, const Result<PathScout::Sight>& sight);
  void begin_as(ProcessId process, const PathScout::Sight& sight);
  void fail_start(ProcessId process, const Error& error);
  void begin(ProcessId process);
  Result<Launched> launch_limited(ProcessId process, LaunchPlan plan, std::string& limits);
  RankProcess::Handlers handlers_of(ProcessId process);
  ProcessExited exit_of(ProcessId process, const ExitStatus& status);
  void on_exit(ProcessId process, const ExitStatus& status);
  std::vector<pid_t> strangers(std::vector<pid_t> children) const;
  bool end_strays(ProcessId process);
  void reap_strays();
  void sweep_folders();
  void give_back_memory();
  void open_spool(const SpoolOwner& owner);
  void finish_spool(ProcessId process);
  void append(ProcessId process, wire::Stream stream, std::string_view bytes);

  void send(const SendToCoordinator& effect);
  void send_gathered();
  void perform(const SendToCoordinator& effect);
  void perform(const SendToRank& effect);
  void perform(const ReserveAddress& effect);
  void perform(const StartProcess& effect);
  void perform(const SignalProcess& effect);
  void perform(const ReleaseProcess& effect);
  void perform(const AppendSpool& effect);
  void perform(const SyncSteps& effect);
  void perform(const ReadSpool& effect);
  void perform(const TruncateSpool& effect);
  void perform(const ConnectLiveness& effect);
  void perform(const Reconnect& effect);
  void perform(const KillSelf& effect);
  void perform(const SlowDisk& effect);
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
  std::size_t way_ = 0;     // of read_join's, that is tried
  bool connected_ = false;  // by it
  std::uint64_t connections_ = 0;
  actor::TimerId reconnect_timer_ = 0;
  std::unique_ptr<transport::ClientEndpoint> endpoint_;
  std::optional<SendToCoordinator> acknowledgement_;  // that leaves with this turn
  std::vector<SendToCoordinator> outbox_;             // gathered
  actor::TimerId gather_ = 0;
  std::unique_ptr<transport::LivenessConnection> liveness_;
  wire::FrameCounters coordinator_frames_;
  wire::FrameCounters rank_frames_;
  Spools spools_;
  std::map<ProcessId, ReservedAddress> addresses_;
  std::map<ProcessId, std::unique_ptr<RankProcess>> processes_;
  std::map<ProcessId, StartingProcess> starting_;  // looked at by the scout
  std::uint64_t tickets_ = 0;
  PathScout scout_;
  JobFolders folders_;
  Instant swept_at_;
  GpuWatch gpus_;
  std::vector<wire::DeviceReading> readings_;  // the newest
  SpecCache specs_;
  CoreShare cores_;
  Limiter limiter_;
  std::map<ProcessId, Group> groups_;
  std::uint64_t oom_kills_ = 0;  // of the machine, as last seen
  Instant oom_seen_at_;
  Instant strays_at_;      // looked for last
  bool released_ = false;  // processes, since memory was given back
  Instant gave_back_at_;
  std::string local_address_;  // of join_
  Duration disk_delay_{0};     // a fault, until disk_slow_until_
  Instant disk_slow_until_;
  bool signals_held_ = false;  // for a handover
  Instant held_long_enough_;
  Quit quit_;
};

}  // namespace tutti::worker
