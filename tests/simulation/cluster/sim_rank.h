// One rank's process: the real RankState, and a model of the computing thread that it commands; or
// the program of a `run` job.
//
// The computing thread does one task at a time, as rank_host.cc has it: set up, listen, one group
// after the other. In a group it keeps the step commit: gradients are exchanged, each rank votes
// once it holds them reduced, and with all votes in it updates without communication, before it
// obeys an abort.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "jobs/rank/rank_state.h"
#include "tests/simulation/cluster/rank_world.h"

namespace tutti::simulation {

class SimRank {
 public:
  struct Doors {
    std::function<void(const wire::FromRank&)> say;
    std::function<void(std::string)> print;  // to its log
    std::function<void(std::int32_t code, std::int32_t signal)> exit;
    std::string machine = {};  // that it is on
    // Whether the coordinator's word reaches it, and it has no order to end.
    std::function<bool()> heeded = {};
  };

  SimRank(RankWorld& shared, wire::StartRank start, Doors doors);
  ~SimRank();
  SimRank(const SimRank&) = delete;
  SimRank& operator=(const SimRank&) = delete;

  void on(const wire::ToRank& order);
  // The program of a `run` job: begins at once, ends by itself.
  void run_program(Generation generation);
  void signal(std::int32_t number);

  bool alive() const { return alive_; }
  bool hung() const { return hung_; }
  bool is_program() const { return start_.kind == "run"; }
  const wire::StartRank& start() const { return start_; }
  void slow_down(double factor) { slowness_ = factor; }

 private:
  using Task = std::function<void()>;

  void tell(const rank::Event& event);
  void perform_all(const std::vector<rank::Effect>& effects);
  void perform(const rank::SendReport& effect);
  void perform(const rank::BeginSetUp& effect);
  void perform(const rank::BeginListening& effect);
  void perform(const rank::BeginGroup& effect);
  void perform(const rank::BeginCommit& effect);
  void perform(const rank::Interrupt& effect);
  void perform(const rank::RaiseFlags& effect);
  // Nobody asks a simulated server anything.
  void perform(const rank::WindDown&) { perform(rank::ExitProcess{0}); }
  void perform(const rank::ExitProcess& effect);

  // The computing thread.
  void push(Task task);
  void next_task();
  void later(Duration delay, Task action);
  // Only if the rank is still in this group.
  void in_group(Duration delay, Task action);

  void connect(const rank::BeginGroup& effect);
  // Once no cut is between this rank and any other one of its group.
  void when_linked(Task action);
  bool is_cut_off();
  void enter();
  bool stand_at_base();
  bool copy_from_peer();
  bool load_checkpoint();
  void set_out(const Flags& flags);
  void begin_step();
  void contribute();
  void reduce();
  void commit_step();
  void after_step(std::uint64_t step);
  void save_part(std::uint64_t step, Task then);
  void finish();
  void leave(std::int32_t suspect, const std::string& reason);
  void detach();
  void update(std::uint64_t step);
  void progress(const char* phase);
  void report_progress();
  // Once a second, whatever it does: what hangs does not.
  void beat();
  void commit_checkpoint(const wire::CommitCheckpoint& order);
  void prune(const wire::CommitCheckpoint& order);
  void die(std::int32_t code, std::int32_t signal_number);
  Group& group() { return shared_.groups[{start_.job, form_.generation}]; }
  const Load& load() { return shared_.load(start_.name); }
  void violate(const char* invariant, const std::string& what);

  RankWorld& shared_;
  World& world_;
  wire::StartRank start_;
  Doors doors_;
  std::shared_ptr<bool> exists_ = std::make_shared<bool>(true);
  bool alive_ = true;
  bool hung_ = false;
  bool stubborn_ = false;
  std::vector<Task> held_up_;  // while it hangs
  double slowness_ = 1;

  rank::RankState state_;
  std::deque<Task> tasks_;
  bool busy_ = false;
  std::optional<std::string> interrupted_;
  Flags raised_;
  Flags agreed_;  // of the step that made its state, not acted on yet

  bool in_group_ = false;
  std::uint32_t rank_ = 0;
  wire::FormGroup form_;
  bool first_step_ = false;
  const char* phase_ = "loading";
  std::uint64_t collective_ = 0;
  std::uint64_t beats_ = 0;
  std::uint64_t writing_ = 0;  // step of the part that is being written
  wire::HeldState held_;
  std::uint64_t value_ = 0;
};

}  // namespace tutti::simulation
