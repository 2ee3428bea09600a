// A model of what a rank does: gets ready, forms its group, steps with the step commit,
// checkpoints, finishes; and of a program of a `run` job.
//
// The training state is one number, a chain over the steps, so that a rank which was led to a wrong
// base step, or copied from a rank that did not hold it, is caught (I13). Ranks of one generation
// meet in a Group.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "protocol/wire/rank_messages.h"
#include "tests/simulation/world.h"

namespace tutti::simulation {

// What a job does, as its ranks know it.
struct Workload {
  std::uint64_t steps = 4;
  std::uint64_t save_every = 2;
  double save_failure = 0;  // a part cannot be written
  double user_failure = 0;  // a program exits with 1
  Duration step_time = 20ms;
};

class Rank;

// What a step's exchange carries besides gradients: OR-ed over the ranks.
struct Flags {
  bool save = false;
  bool stop = false;

  void add(const Flags& other) {
    save = save || other.save;
    stop = stop || other.stop;
  }
};

struct Group {
  std::uint32_t size = 0;
  std::map<std::uint32_t, Rank*> members;
  bool connected = false;
  bool broken = false;  // a member is gone: no vote completes any more
  std::uint32_t formed = 0;
  std::uint64_t step = 0;         // being computed
  std::set<std::uint32_t> voted;  // hold the gradients of `step`
  std::set<std::uint32_t> committed;
  Flags flags = {};  // of the step being computed
};

// Disk that all ranks see.
struct SharedStorage {
  struct Parts {
    std::set<std::uint32_t> ranks;
    std::uint32_t size = 0;
    std::uint64_t value = 0;
  };
  std::map<std::pair<std::uint64_t, std::pair<std::uint64_t, std::uint64_t>>, Parts>
      parts;                                                                   // job, g, step
  std::map<std::pair<std::uint64_t, std::uint64_t>, std::uint64_t> committed;  // job, step -> value
};

// What all ranks of the simulated cluster share.
struct RankWorld {
  World& world;
  std::map<std::string, Workload> workloads = {};  // by the job's name
  std::map<std::pair<JobId, Generation>, Group> groups = {};
  std::map<JobId, Generation> newest_formed = {};
  std::map<JobId, std::map<ProcessId, Generation>> programs = {};  // that run now
  std::uint64_t steps_committed = 0;

  SharedStorage storage = {};
};

std::uint64_t value_at(std::uint64_t step);

class Rank {
 public:
  using Say = std::function<void(const wire::FromRank&)>;
  using Exit = std::function<void(std::int32_t code, std::int32_t signal)>;

  Rank(RankWorld& shared, wire::StartRank start, Say say, Exit exit);
  ~Rank();
  Rank(const Rank&) = delete;
  Rank& operator=(const Rank&) = delete;

  void on(const wire::ToRank& order);
  // The program of a `run` job: begins at once, ends by itself.
  void run_program(Generation generation);
  void signal(std::int32_t number);
  bool alive() const { return alive_; }
  bool is_program() const { return start_.kind == "run"; }

 private:
  void handle(const wire::StartRank& order);
  void handle(const wire::Regroup& order);
  void handle(const wire::FormGroup& order);
  void handle(const wire::AbortGeneration& order);
  void handle(const wire::StopRank& order);
  void handle(const wire::CommitCheckpoint& order);
  void handle(const wire::SetFlags& order);

  void later(Duration delay, std::function<void()> action);
  // Only if the rank is still in this generation's group.
  void in_group(Duration delay, std::function<void()> action);
  void say(wire::FromRank message);
  void ready();
  void stand_at(const wire::FormGroup& order);
  void form();
  void vote();
  void commit();
  void save_part(std::uint64_t step);
  void finish();
  void leave_group();
  void group_broken(std::int32_t suspect);
  void die(std::int32_t code, std::int32_t signal_number);
  Group* group();

  RankWorld& shared_;
  wire::StartRank start_;
  Say say_;
  Exit exit_;
  std::shared_ptr<bool> exists_ = std::make_shared<bool>(true);
  bool alive_ = true;
  bool hung_ = false;
  Generation generation_;
  std::uint32_t rank_ = 0;
  std::uint32_t size_ = 0;
  bool in_group_ = false;
  wire::FormGroup form_;
  wire::HeldState held_;
  std::uint64_t value_ = 0;
  bool first_step_said_ = false;
  Flags raised_;
  Flags agreed_;  // of the step that made its state, not acted on yet
};

}  // namespace tutti::simulation
