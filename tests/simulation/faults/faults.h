// What befalls a cluster: one file a fault, one row a fault in the table.
//
// A fault strikes once, at a moment that chance chose, and ends by itself. `calm` undoes whatever
// could last, when the faults of a scenario are over.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "tests/simulation/cluster/sim_coordinator.h"
#include "tests/simulation/cluster/sim_worker.h"
#include "tests/simulation/world/network.h"

namespace tutti::simulation {

struct Struck {
  World& world;
  Rng& rng;
  SimCoordinator& coordinator;
  std::vector<std::unique_ptr<SimWorker>>& workers;
  Network& network;
  RankWorld& ranks;
  SimWorker& worker;     // the one that chance chose
  Duration away{0};      // of who comes back, of what passes
  std::uint64_t choice;  // for whatever else there is to choose
};

// Whose jobs a fault touches, for the coverage table.
enum class Reach { cluster, machine, ranks };

struct FaultRow {
  std::string_view name;
  void (*strike)(Struck& at);
  Reach reach;
  std::string_view about;
};

std::span<const FaultRow> faults();
const FaultRow* find_fault(std::string_view name);
// Everything that could last is undone.
void calm(Struck& at);

// One file each.
void crash_coordinator(Struck& at);
void stop_coordinator(Struck& at);
void crash_worker(Struck& at);
void end_worker(Struck& at);
void replace_worker(Struck& at);
void revoke_key(Struck& at);
void kill_rank(Struck& at);
void hang_rank(Struck& at);
void cut_link(Struck& at);
void cut_one_way(Struck& at);
void long_cut(Struck& at);
void congest_network(Struck& at);
// What becomes, for a while, of every frame of one kind, which chance chooses of all that travel
// between coordinator and workers.
void meet_one_kind(Struck& at, FrameFate fate);

void drop_messages(Struck& at);
void hold_messages(Struck& at);
void fill_disk(Struck& at);
void slow_disk(Struck& at);
void fill_storage(Struck& at);
void slow_storage(Struck& at);
void step_clock(Struck& at);
void slow_node(Struck& at);
void lose_power(Struck& at);
void cut_ranks(Struck& at);
void silent_records(Struck& at);

}  // namespace tutti::simulation
