// The coordinator's machine: the real ClusterState, a disk that loses what is not synced, spool
// stores, and crashes around the sync.
//
// It keeps the rules of coordinator/cluster_messages.h as cluster_host.cc does: facts are appended
// and synced before effects leave, one sync may serve several decisions, a sync holds up all that
// comes meanwhile.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/cluster/cluster_state.h"
#include "tests/simulation/cluster/journal.h"
#include "tests/simulation/world/world.h"

namespace tutti::simulation {

// Where a crash cuts one decision off; between_effects: some of them have left.
enum class CrashPoint { before_sync, after_sync, between_effects };

// Bytes of a process's streams that were synced.
using Stored = std::map<std::pair<ProcessId, wire::Stream>, std::string>;

class SimCoordinator {
 public:
  struct Doors {
    std::function<void(const coordinator::SendToWorker&)> send;
    std::function<void(const coordinator::Answer&)> answer;
    std::function<void(SessionId)> liveness_ended;  // to the worker that held the connection
    // A life begins, with what the journal held.
    std::function<void()> started;
    // After each decision; not all of it may be synced yet.
    std::function<void(const coordinator::Decision&)> decided;
    // It ends where crash_at chose, before anything is lost.
    std::function<void()> crashes;
  };

  SimCoordinator(World& world, coordinator::ClusterSettings settings, Doors doors);

  void start();
  void crash(Duration away);
  // The decision after `decisions` more ones is cut off there.
  void crash_at(std::uint64_t decisions, CrashPoint point, Duration away);
  void fill_disk();
  void free_disk();
  // A sync takes up to so long, and all that comes meanwhile waits.
  void slow_disk(Duration sync_max) { sync_max_ = sync_max; }
  // The operator writes other quotas into its configuration and has it read again; if it is down,
  // its next life reads them.
  void configure(coordinator::RequestId request, coordinator::scheduler::Quotas quotas);
  // The process stands still (SIGSTOP, a starved machine).
  void stand_still(Duration time);

  void on(const coordinator::Input& input);
  void receive(const std::string& peer, SessionId session, Sequence sequence,
               const wire::FromWorker& message);
  bool connect(SessionId session, const std::string& token);
  void disconnected(SessionId session);

  const coordinator::ClusterState* state() const { return state_.get(); }
  Journal& journal() { return journal_; }
  const Journal& journal() const { return journal_; }
  const Stored& stored() const { return stored_; }
  // Whose log says that its end may be missing.
  const std::set<ProcessId>& cut_logs() const { return cut_logs_; }
  // What the journal held when this life began.
  const JournalPast& past() const { return past_; }
  std::uint64_t life() const { return life_; }
  Instant alive_since() const { return alive_since_; }
  // All that was decided is durable.
  bool synced() const { return facts_.empty(); }
  std::vector<coordinator::NodeView> nodes() const;
  std::optional<coordinator::Explanation> explain(JobId job) const;
  // As the newest configuration that was read has them.
  const coordinator::scheduler::Quotas& quotas() const { return in_force_; }
  bool takes_appends() const { return !failing_ && !full_; }
  bool standing_still() const { return world_.now() < busy_until_; }

 private:
  coordinator::Input received(coordinator::Input input);
  coordinator::ClusterSettings settings_of_life() const;
  void handle(coordinator::Decision decision);
  void perform_immediate(const coordinator::Decision& decision);
  void speak_first(coordinator::Decision decision);
  bool sync();
  void write_snapshot();
  void flush();
  void flush_slowly(Duration time);
  void release(const std::vector<coordinator::Effect>& effects);
  void perform(const coordinator::Effect& effect);
  void answer(const coordinator::Answer& answer);
  void take_spool(const std::string& peer, SessionId session, const wire::SpoolData& data);
  void tell_of_steps(const wire::SpoolData& data, std::size_t from);
  void arm();
  std::string random();
  WallTime wall() const;

  World& world_;
  coordinator::ClusterSettings settings_;
  coordinator::scheduler::Quotas first_quotas_;
  coordinator::scheduler::Quotas in_force_;
  Doors doors_;
  Journal journal_;
  JournalPast past_;
  Stored stored_;
  std::set<ProcessId> cut_logs_;
  std::map<std::pair<JobId, std::uint64_t>, std::string> step_hash_;
  std::set<JobId> spools_failing_;
  bool full_ = false;
  Duration sync_max_{0};

  std::unique_ptr<coordinator::ClusterState> state_;
  std::uint64_t life_ = 0;
  Instant alive_since_;
  std::uint64_t decisions_ = 0;
  std::vector<coordinator::Fact> facts_;
  std::vector<coordinator::Event> events_;
  std::vector<coordinator::Effect> effects_;
  std::set<coordinator::RequestId> open_requests_;
  std::uint64_t decided_through_ = 0;
  std::uint64_t durable_through_ = 0;
  bool flush_due_ = false;
  bool failing_ = false;
  std::map<SessionId, std::string> watched_;  // session -> token
  std::map<SessionId, bool> liveness_;        // connected
  Instant armed_;
  bool is_armed_ = false;
  Instant busy_until_;
  std::vector<coordinator::Input> backlog_;

  std::uint64_t crash_at_ = 0;
  CrashPoint crash_point_ = CrashPoint::before_sync;
  Duration crash_away_{0};
};

}  // namespace tutti::simulation
