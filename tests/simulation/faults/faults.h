// What befalls a cluster: one file a fault, one row a fault in the table.
//
// A fault strikes once, at a moment that chance chose, and ends by itself. `calm` undoes whatever
// could last, when the faults of a scenario are over.
#pragma once

#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string_view>
#include <vector>

#include "tests/simulation/cluster/sim_coordinator.h"
#include "tests/simulation/cluster/sim_worker.h"
#include "tests/simulation/world/network.h"

namespace tutti::simulation {

// The jobs that a fault touched; nothing: this time it did nothing.
using Touched = std::optional<std::set<JobId>>;

struct Struck {
  World& world;
  Rng& rng;
  SimCoordinator& coordinator;
  std::vector<std::unique_ptr<SimWorker>>& workers;
  Network& network;
  RankWorld& ranks;
  SimWorker& worker;              // the one that chance chose
  Duration away{0};               // of who comes back, of what passes
  std::uint64_t choice;           // for whatever else there is to choose
  std::set<JobId> everyone = {};  // jobs that have not ended
  std::set<JobId> here = {};      // those with a process on the worker's machine
};

// Whose jobs a fault touches, for the coverage table.
enum class Reach { cluster, machine, ranks };

struct FaultRow {
  std::string_view name;
  Touched (*strike)(Struck& at);
  Reach reach;
  std::string_view about;
};

std::span<const FaultRow> faults();
const FaultRow* find_fault(std::string_view name);
// Everything that could last is undone.
void calm(Struck& at);

// One file each.
Touched crash_coordinator(Struck& at);
Touched stop_coordinator(Struck& at);
Touched crash_worker(Struck& at);
Touched end_worker(Struck& at);
Touched replace_worker(Struck& at);
Touched revoke_key(Struck& at);
Touched kill_rank(Struck& at);
Touched hang_rank(Struck& at);
Touched cut_link(Struck& at);
Touched cut_one_way(Struck& at);
Touched long_cut(Struck& at);
Touched congest_network(Struck& at);
// What becomes, for a while, of every frame of one kind, which chance chooses of all that travel
// between coordinator and workers.
Touched meet_one_kind(Struck& at, FrameFate fate);

Touched drop_messages(Struck& at);
Touched hold_messages(Struck& at);
Touched fill_disk(Struck& at);
Touched slow_disk(Struck& at);
Touched fill_storage(Struck& at);
Touched slow_storage(Struck& at);
Touched step_clock(Struck& at);
Touched slow_node(Struck& at);
Touched lose_power(Struck& at);
Touched cut_ranks(Struck& at);
Touched silent_records(Struck& at);

}  // namespace tutti::simulation
