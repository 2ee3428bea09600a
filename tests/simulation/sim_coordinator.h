// The coordinator's machine: the real ClusterState, a disk that loses what is not synced, and
// crashes around the sync.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "coordinator/cluster/cluster_state.h"
#include "tests/simulation/world.h"

namespace tutti::simulation {

struct Disk {
  coordinator::Snapshot snapshot;
  std::vector<coordinator::Fact> facts;
  std::uint64_t last_event = 0;
  std::map<std::pair<ProcessId, wire::Stream>, std::uint64_t> spools;
  bool full = false;
};

// Where a crash cuts one decision off.
enum class CrashPoint { before_sync, after_sync };

// What a coordinator that breaks a rule does; the checkers must find it.
enum class Sabotage {
  none,
  speak_before_sync,  // effects leave, and the sync comes some time later
  forget_on_restart,  // a restart replays the snapshot only
};

class SimCoordinator {
 public:
  struct Doors {
    std::function<void(const coordinator::SendToWorker&)> send;
    std::function<void(const coordinator::Answer&)> answer;
    std::function<void(SessionId)> liveness_ended;  // to the worker that held the connection
    // After each decision and its sync; `pending`: not everything is synced.
    std::function<void(const coordinator::Decision&)> decided;
  };

  SimCoordinator(World& world, coordinator::ClusterSettings settings, Doors doors);

  void start();
  void crash(Duration away);
  // The decision after `decisions` more ones is cut off there.
  void crash_at(std::uint64_t decisions, CrashPoint point, Duration away);
  void fill_disk(bool full);
  void sabotage(Sabotage kind) { sabotage_ = kind; }

  void on(const coordinator::Input& input);
  void receive(const std::string& peer, SessionId session, Sequence sequence,
               const wire::FromWorker& message);
  bool connect(SessionId session, const std::string& token);
  void disconnected(SessionId session);

  const coordinator::ClusterState* state() const { return state_.get(); }
  const Disk& disk() const { return disk_; }
  bool synced() const { return pending_facts_.empty(); }
  std::uint64_t decisions() const { return decisions_; }
  WallTime wall() const;

 private:
  void handle(coordinator::Decision decision);
  bool sync();
  void flush();
  void release(std::vector<coordinator::Effect> effects);
  void perform(const coordinator::Effect& effect);
  void take_spool(const std::string& peer, SessionId session, const wire::SpoolData& data);
  void arm();
  std::string random();

  World& world_;
  coordinator::ClusterSettings settings_;
  Doors doors_;
  Disk disk_;
  std::unique_ptr<coordinator::ClusterState> state_;
  std::uint64_t life_ = 0;
  std::uint64_t decisions_ = 0;
  std::vector<coordinator::Fact> pending_facts_;
  std::uint64_t pending_event_ = 0;
  std::vector<coordinator::Effect> pending_effects_;
  std::uint64_t decided_through_ = 0;
  std::uint64_t durable_through_ = 0;
  bool failing_ = false;
  std::map<SessionId, std::string> watched_;  // session -> token
  std::map<SessionId, bool> liveness_;        // connected
  Instant armed_;
  bool is_armed_ = false;
  std::uint64_t crash_at_ = 0;
  CrashPoint crash_point_ = CrashPoint::before_sync;
  Duration crash_away_{0};
  Sabotage sabotage_ = Sabotage::none;
};

}  // namespace tutti::simulation
