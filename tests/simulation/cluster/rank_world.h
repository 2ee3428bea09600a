// What all simulated ranks share: the groups they meet in, the storage they all see, and the
// arithmetic of a model whose "weights" are one number.
//
// A step adds what each logical shard contributes, once, whoever holds it (DESIGN numerics): so the
// state after step t is value_at(t) for any number of ranks, and a shard that was used twice or not
// at all, a state copied from the wrong place or a step that some rank did alone is seen (I12,
// I13).
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "protocol/wire/rank_messages.h"
#include "tests/simulation/world/world.h"

namespace tutti::simulation {

// Logical shards of every simulated training job.
inline constexpr std::uint32_t kShards = 8;

// Of every simulated node.
inline constexpr std::uint64_t kNodeMemory = std::uint64_t{1} << 30;

// What a job does, as its ranks know it.
struct Load {
  std::uint64_t steps = 4;
  std::uint64_t save_every = 2;
  double save_failure = 0;    // a part cannot be written
  double user_failure = 0;    // a program exits with 1
  double set_up_failure = 0;  // the job cannot be opened: the user's fault
  double own_failure = 0;     // tutti-rank aborts in a step
  Duration step_time = 20ms;
  // A program that begins on this machine within this time is held up for as long, as by a file
  // system that does not answer, and ignores SIGTERM.
  std::string held_on = {};
  Duration held_from{0};
  Duration held_until{0};
};

class SimRank;

// What a step's exchange carries besides gradients: OR-ed over the ranks.
struct Flags {
  bool save = false;
  bool stop = false;

  void add(const Flags& other) {
    save = save || other.save;
    stop = stop || other.stop;
  }
};

// One step's exchange among the ranks of a group.
struct Exchange {
  std::set<std::uint32_t> contributed;  // ranks
  std::array<int, kShards> used{};      // times that each shard was added
  std::set<std::uint32_t> voted;        // hold the reduced gradients
  Flags flags;
};

struct Group {
  std::uint32_t size = 0;
  std::map<std::uint32_t, SimRank*> members;
  bool connected = false;
  bool broken = false;              // a member is gone: nothing completes any more
  std::set<std::uint32_t> entered;  // stand at the base step
  std::map<std::uint64_t, Exchange> steps;
};

// Disk that all ranks see.
struct CheckpointPart {
  std::uint64_t value = 0;
  bool whole = false;  // false: the writer died in the middle of it
};
struct SharedStorage {
  // (job, generation, step) -> rank -> part, in the generation's private folder.
  std::map<std::tuple<JobId, Generation, std::uint64_t>, std::map<std::uint32_t, CheckpointPart>>
      parts;
  std::map<std::pair<JobId, std::uint64_t>, std::uint64_t> committed;  // (job, step) -> value
  Duration write_max = 5ms;                                            // of a part
  bool full = false;
};

struct JobHistory {
  std::map<std::uint64_t, std::uint64_t> committed;  // step -> value
  Generation newest_formed;
  std::uint32_t user_failures = 0;   // that really were the user's
  std::uint32_t finished_steps = 0;  // the last step was reached
  std::uint32_t programs_done = 0;   // that came to their end
};

struct RankWorld {
  World& world;
  std::map<std::string, Load> loads = {};  // by the job's name
  std::map<std::pair<JobId, Generation>, Group> groups = {};
  std::map<JobId, std::map<ProcessId, Generation>> programs = {};  // that run now
  std::map<JobId, JobHistory> history = {};
  SharedStorage storage = {};
  std::uint64_t steps_committed = 0;
  // Machines whose ranks do not reach each other now, in alphabetic order. Connections do not end:
  // what was said arrives once the cut is over.
  std::set<std::pair<std::string, std::string>> cuts = {};

  bool is_cut(const std::string& one, const std::string& other) const {
    return cuts.contains(std::minmax(one, other));
  }

  // Of a job by its name, or of a task by its array's and its number.
  const Load& load(const std::string& name) { return loads[name.substr(0, name.find('.'))]; }
};

// The state after `step` of an undisturbed run.
std::uint64_t value_at(std::uint64_t step);
// The state one step later, if every shard was used as often as `used` says.
std::uint64_t next_value(std::uint64_t value, std::uint64_t step,
                         const std::array<int, kShards>& used);

}  // namespace tutti::simulation
