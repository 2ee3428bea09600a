// The invariants of DESIGN, each a checker of its own that can fail a run, by name.
//
// I3, I12, I13 and I14 are also checked where they would be broken, in the simulated ranks
// (cluster/rank_steps.cc, rank_checkpoints.cc), I10 in the simulated worker, I2 and I18 in the
// clients. The table says which.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "coordinator/cluster/durable.h"
#include "tests/simulation/cluster/sim_coordinator.h"
#include "tests/simulation/cluster/sim_worker.h"
#include "tests/simulation/scenario/clients.h"
#include "tests/simulation/scenario/options.h"

namespace tutti::simulation {

// What a checker may look at.
struct Observed {
  World& world;
  const RankWorld& ranks;
  const SimCoordinator& coordinator;
  const std::vector<std::unique_ptr<SimWorker>>& workers;
  const Clients& clients;
  const ScenarioOptions& options;
  // The durable state, as a replay of all that was decided gives it, before and after a decision.
  const coordinator::Durable& shadow;
};

class Checker {
 public:
  virtual ~Checker() = default;
  // One fact of a decision is about to be applied to the shadow, and was.
  virtual void before_fact(const Observed&, const coordinator::Fact&) {}
  virtual void after_fact(const Observed&, const coordinator::Fact&) {}
  virtual void decided(const Observed&, const coordinator::Decision&) {}
  // A coordinator started from its disk.
  virtual void restarted(const Observed&) {}
  virtual void sent(const Observed&, const coordinator::SendToWorker&) {}
  // Every so often.
  virtual void looked(const Observed&) {}
  // Faults are over and all is done: the auditor.
  virtual void ended(const Observed&) {}
};

struct CheckerRow {
  std::string_view invariant;
  std::unique_ptr<Checker> (*make)();  // null: checked where it would be broken only
  std::string_view holds;
};

std::span<const CheckerRow> checkers();

class Checkers {
 public:
  explicit Checkers(Observed observed);

  void decided(const coordinator::Decision& decision);
  void restarted();
  void sent(const coordinator::SendToWorker& frame);
  void looked();
  void ended();

  const coordinator::Durable& shadow() const { return shadow_; }

 private:
  Observed observed(const coordinator::Durable& shadow) const;

  coordinator::Durable shadow_;
  Observed observed_;
  std::vector<std::unique_ptr<Checker>> checkers_;
};

// One a row.
std::unique_ptr<Checker> make_accepted_checker();    // I1
std::unique_ptr<Checker> make_generation_checker();  // I3
std::unique_ptr<Checker> make_gang_checker();        // I4
std::unique_ptr<Checker> make_resource_checker();    // I5
std::unique_ptr<Checker> make_slot_checker();        // I6
std::unique_ptr<Checker> make_transition_checker();  // I7
std::unique_ptr<Checker> make_charge_checker();      // I8
std::unique_ptr<Checker> make_order_checker();       // I9
std::unique_ptr<Checker> make_silence_checker();     // I10
std::unique_ptr<Checker> make_replay_checker();      // I11
std::unique_ptr<Checker> make_sample_checker();      // I12
std::unique_ptr<Checker> make_hash_checker();        // I13
std::unique_ptr<Checker> make_checkpoint_checker();  // I14
std::unique_ptr<Checker> make_record_checker();      // I15
std::unique_ptr<Checker> make_drain_checker();       // I16
std::unique_ptr<Checker> make_liveness_checker();    // I17
std::unique_ptr<Checker> make_answer_checker();      // I18
std::unique_ptr<Checker> make_memory_checker();      // I19
// Of waiting for a turn (DESIGN jobs), which has no numbers.
std::unique_ptr<Checker> make_array_checker();
std::unique_ptr<Checker> make_dependency_checker();
std::unique_ptr<Checker> make_quota_checker();
std::unique_ptr<Checker> make_place_checker();
std::unique_ptr<Checker> make_fit_checker();
std::unique_ptr<Checker> make_begin_checker();
std::unique_ptr<Checker> make_hold_checker();
std::unique_ptr<Checker> make_backfill_checker();
std::unique_ptr<Checker> make_turn_checker();

// Which paths of a job's life were taken (coverage.h): of a fact before it is applied.
void note_paths(const Observed& seen, const coordinator::Fact& fact);
void note_paths(const Observed& seen, const coordinator::Event& event);

// Whether the node has the labels and the kind of device that were asked for.
bool suits(const SimWorker& worker, std::uint32_t slot, const spec::ResourceSpec& wanted);
// Ranks of the job that an empty cluster has room for.
std::uint64_t room_for(const Observed& seen, const coordinator::JobRecord& job);

// As its client asked for it, or its array; null: nobody planned it.
const PlannedJob* planned_of(const Observed& seen, const coordinator::JobRecord& job);
// "job 3 (train-0)"
std::string describe(const coordinator::JobRecord& job);
std::string_view state_name(coordinator::JobState state);

}  // namespace tutti::simulation
