// A worker machine: the real WorkerState, its processes as model ranks, its two links.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/simulation/ranks.h"
#include "tests/simulation/world.h"
#include "worker/agent/worker_state.h"

namespace tutti::simulation {

// What a worker sees of the coordinator; it may be down at any time.
struct CoordinatorDoor {
  // False: nobody is there. ZeroMQ keeps such frames until somebody is.
  std::function<bool(const std::string& peer, SessionId, Sequence, const wire::FromWorker&)>
      receive;
  // The liveness connection: whether it was taken, and that it ended.
  std::function<bool(SessionId, const std::string& token, const std::string& worker)> connect;
  std::function<void(SessionId)> disconnected;
};

struct WorkerOptions {
  std::string name;
  std::uint32_t slots = 2;
  NetworkOptions network;
};

class SimWorker {
 public:
  SimWorker(RankWorld& ranks, CoordinatorDoor door, WorkerOptions options);

  void start();
  // Dies with all its ranks; comes back as a new process after `away`.
  void crash(Duration away);
  void cut(bool is_cut);
  void calm();  // no more faults of the network
  void kill_rank(std::uint64_t choice);
  void stop_rank(std::uint64_t choice);

  void receive(const std::string& peer, SessionId session, Sequence sequence,
               const wire::ToWorker& message);
  void liveness_ended(SessionId session);
  // A coordinator is there again: what was kept for it reaches it first.
  void coordinator_up();

  const std::string& name() const { return options_.name; }
  bool alive() const { return state_ != nullptr; }
  // Living processes that hold each slot.
  std::map<std::uint32_t, int> slots_in_use() const;
  std::size_t processes() const { return processes_.size(); }

 private:
  struct Process {
    wire::StartRank start;
    std::unique_ptr<Rank> rank;
    std::uint64_t log = 0;
    std::uint64_t steps = 0;
  };

  void on(const worker::Input& input);
  void deliver(const std::string& peer, const worker::SendToCoordinator& effect);
  void later(Duration delay,
             std::function<void()> action);  // only if this process of the worker still lives
  void tick();
  void perform(const worker::SendToCoordinator& effect);
  void perform(const worker::SendToRank& effect);
  void perform(const worker::ReserveAddress& effect);
  void perform(const worker::StartProcess& effect);
  void perform(const worker::SignalProcess& effect);
  void perform(const worker::ReleaseProcess&) {}
  void perform(const worker::AppendSpool& effect);
  void perform(const worker::ReadSpool& effect);
  void perform(const worker::TruncateSpool&) {}
  void perform(const worker::ConnectLiveness& effect);
  void perform(const worker::Reconnect& effect);
  void perform(const worker::Note&) {}
  // Faults come from the scenario, not by orders.
  void perform(const worker::KillSelf&) {}
  void perform(const worker::SlowDisk&) {}
  void perform(const worker::Quit& effect);
  Rank* choose_rank(std::uint64_t choice);

  RankWorld& ranks_;
  World& world_;
  CoordinatorDoor door_;
  WorkerOptions options_;
  Channel up_;
  Channel down_;
  bool cut_ = false;
  std::unique_ptr<worker::WorkerState> state_;
  std::uint64_t incarnation_ = 0;
  std::uint64_t connection_ = 0;
  std::string peer_;
  SessionId liveness_;
  std::vector<worker::SendToCoordinator> kept_;
  std::map<ProcessId, Process> processes_;
};

}  // namespace tutti::simulation
