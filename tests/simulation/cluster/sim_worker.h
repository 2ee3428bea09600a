// A worker's machine: the real WorkerState, its ranks, its spools (which outlive its processes),
// and its link to the coordinator.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/simulation/cluster/sim_rank.h"
#include "tests/simulation/world/network.h"
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
  std::vector<std::string> labels = {};  // key=value
  std::string profile = "portable";
  std::vector<std::uint64_t> devices = {};  // memory of each slot's GPU; empty: there are none
  bool refuses_programs = false;            // an interpreter is missing
};

// What one process wrote, as its worker's disk keeps it.
struct SimSpool {
  wire::StartRank start;
  std::string log;
  std::string steps;
  std::uint64_t truncated_log = 0;  // read no more before it
  std::uint64_t truncated_steps = 0;
  bool released = false;  // both streams are said to be with the coordinator
  bool cut = false;       // its machine lost power
  std::size_t synced_steps = 0;
  // What it had before a loss of power took the end of it.
  std::string whole_log;
  std::string whole_steps;
};

class SimWorker {
 public:
  SimWorker(RankWorld& ranks, Network& network, CoordinatorDoor door, WorkerOptions options);

  void start();
  // Dies with all its ranks; comes back as a new process after `away`.
  void crash(Duration away);
  // SIGHUP: another binary in the same process, which goes on with its ranks (handover.h).
  // False: it is down, or on its way to it.
  bool replace();
  // The same as crash, and its disk loses of each spool what was not synced.
  void lose_power(Duration away);
  // SIGTERM: ends its ranks, says so, ends; comes back after `away`. False as above.
  bool stop(Duration away);
  // The coordinator lets it go: it ends once it hears of it, if it does, and comes back after
  // `away`. False as above.
  bool expect_refusal(Duration away);
  enum class Cut { both, up, down };  // up: to the coordinator
  void cut(Cut what);
  void heal();
  // All that happens here takes `factor` times as long.
  void slow_down(double factor);
  // Of which job; none: no rank is here.
  JobId kill_rank(std::uint64_t choice);
  // The same. A program only for some seconds: one that hangs is its user's matter (limit.time).
  JobId hang_rank(std::uint64_t choice, Duration time);

  void receive(const std::string& peer, SessionId session, Sequence sequence,
               const wire::ToWorker& message);
  void liveness_ended(SessionId session);
  // A coordinator is there again: what was kept for it reaches it first.
  void coordinator_up();

  const std::string& name() const { return options_.name; }
  bool alive() const { return state_ != nullptr; }
  const worker::WorkerState* state() const { return state_.get(); }
  bool is_cut() const { return up_.is_cut() || down_.is_cut(); }
  // Living processes that hold each slot.
  std::map<std::uint32_t, int> slots_in_use() const;
  // Jobs with a living process here.
  std::set<JobId> jobs_here() const;
  std::uint32_t slots() const { return options_.slots; }
  bool has_label(std::string_view label) const;
  const std::string& profile() const { return options_.profile; }
  std::uint64_t device_memory_of(std::uint32_t slot) const {
    return slot < options_.devices.size() ? options_.devices[slot] : 0;
  }
  const std::map<ProcessId, SimSpool>& spools() const { return spools_; }
  // Since when the coordinator cannot know of it: down, or cut off; nothing while all is well.
  std::optional<Instant> unreachable_since() const { return unreachable_since_; }

 private:
  struct Process {
    std::unique_ptr<SimRank> rank;
    bool was_ready = false;
    bool ordered = false;   // to stop, or a fault was ordered
    bool silenced = false;  // ended for the coordinator's silence
  };

  void on(const worker::Input& input);
  void note_orders(const wire::ToWorker& message);
  void note_one_way(const Channel& used, const Channel& other);
  void deliver(const std::string& peer, const worker::SendToCoordinator& effect);
  void later(Duration delay,
             std::function<void()> action);  // only if this process of the worker still lives
  // The same, and only if it still runs the same binary.
  void soon(Duration delay, std::function<void()> action);
  void begin(const worker::SavedState* saved);
  void tick();
  void perform(const worker::SendToCoordinator& effect);
  void send(worker::SendToCoordinator sent);
  void perform(const worker::SendToRank& effect);
  void perform(const worker::ReserveAddress& effect);
  void perform(const worker::StartProcess& effect);
  void perform(const worker::SignalProcess& effect);
  void perform(const worker::ReleaseProcess& effect);
  void perform(const worker::AppendSpool& effect);
  void perform(const worker::SyncSteps& effect);
  void perform(const worker::ReadSpool& effect);
  void perform(const worker::TruncateSpool& effect);
  void perform(const worker::ConnectLiveness& effect);
  void perform(const worker::Reconnect& effect);
  void perform(const worker::KillSelf& effect);
  void perform(const worker::SlowDisk&) {}
  void perform(const worker::Note&) {}
  void perform(const worker::Quit& effect);
  void spoke(ProcessId id, const wire::FromRank& message);
  void exited(ProcessId id, std::int32_t code, std::int32_t signal);
  void print(ProcessId id, const std::string& text);
  wire::Hello hello() const;
  std::string device_of(std::uint32_t slot) const;  // its UUID; empty: the CPU
  void check_device(const wire::StartRank& start);
  void feed_left_spools();
  void check_signal(const worker::SignalProcess& effect, Process& process);
  SimRank* choose_rank(std::uint64_t choice);

  RankWorld& ranks_;
  World& world_;
  CoordinatorDoor door_;
  WorkerOptions options_;
  Channel up_;
  Channel down_;
  std::unique_ptr<worker::WorkerState> state_;
  std::uint64_t incarnation_ = 0;
  std::uint64_t binary_ = 0;
  std::uint64_t connection_ = 0;
  std::string peer_;
  SessionId liveness_;
  std::vector<worker::SendToCoordinator> kept_;
  std::map<ProcessId, Process> processes_;
  std::map<ProcessId, SimSpool> spools_;
  double slowness_ = 1;
  bool forming_ = false;  // it takes a FormGroup
  bool stopping_ = false;
  Duration stop_away_{0};
  Instant asked_;  // the newest Hello or heartbeat was said
  Instant heard_;  // what was answered last was said
  std::optional<Instant> unreachable_since_;
};

}  // namespace tutti::simulation
