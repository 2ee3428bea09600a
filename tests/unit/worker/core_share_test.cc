#include <sched.h>
#include <catch2/catch.hpp>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/support/temporary_folder.h"
#include "worker/inventory/cores.h"
#include "worker/launcher/core_share.h"

using namespace tutti;
using namespace tutti::worker;

namespace {

// Of one node.
std::vector<Core> cores_of(std::initializer_list<int> cpus) {
  std::vector<Core> cores;
  for (const int cpu : cpus) cores.push_back({cpu, 0});
  return cores;
}

}  // namespace

TEST_CASE("cores: ranks get neighbours that nobody else has, and what ends puts its own back") {
  CoreShare share(cores_of({1, 2, 3, 4, 5}));
  CHECK(share.take(ProcessId{1}, 2) == "1,2");
  CHECK(share.take(ProcessId{2}, 1) == "3");
  CHECK(share.take(ProcessId{3}, 3).empty());
  CHECK(share.take(ProcessId{3}, 2) == "4,5");
  CHECK(share.take(ProcessId{4}, 1).empty());
  share.put_back(ProcessId{2});
  share.put_back(ProcessId{3});
  CHECK(share.take(ProcessId{5}, 3) == "3,4,5");
  share.put_back(ProcessId{1});
  CHECK(share.take(ProcessId{6}, 0).empty());
  // 1 and 2 are free, and no third.
  CHECK(share.take(ProcessId{6}, 3).empty());
  CHECK(share.take(ProcessId{6}, 1) == "1");
}

TEST_CASE("cores: what a restarted worker's ranks have is not given to others") {
  CoreShare before(cores_of({1, 2, 3}));
  CHECK(before.take(ProcessId{1}, 1) == "1");
  CHECK(before.take(ProcessId{2}, 1) == "2");
  CoreShare after(cores_of({1, 2, 3}));
  after.adopt(ProcessId{2}, before.of(ProcessId{2}));
  CHECK(before.of(ProcessId{3}).empty());
  CHECK(after.take(ProcessId{3}, 3).empty());
  CHECK(after.take(ProcessId{3}, 2) == "1,3");  // beside each other none are left
}

TEST_CASE("cores: a machine of two nodes, whose cores have two threads each") {
  const std::vector<Core> cores = synthetic_cores("numa:2 core:2 pu:2");
  CHECK(cores == std::vector<Core>{{0, 0, {1}}, {2, 0, {3}}, {4, 1, {5}}, {6, 1, {7}}});
  CHECK(synthetic_cores("core:3 pu:1") == cores_of({0, 1, 2}));  // without nodes: one
  CHECK(synthetic_cores("no machine").empty());
}

TEST_CASE("cores: a rank lies in one node wherever a node has room for it") {
  CoreShare share(synthetic_cores("numa:2 core:4 pu:1"));
  CHECK(share.take(ProcessId{1}, 3) == "0,1,2");
  // 3 and 4 are neighbours, but of two nodes.
  CHECK(share.take(ProcessId{2}, 2) == "4,5");
  // The tightest place: the one core that is left of the first node, not one of two.
  CHECK(share.take(ProcessId{3}, 1) == "3");
  CHECK(share.take(ProcessId{4}, 2) == "6,7");
  CHECK(share.take(ProcessId{5}, 1).empty());
}

TEST_CASE("cores: a rank that no node holds has neighbours over the border, else what is free") {
  CoreShare share(cores_beside_agent(synthetic_cores("numa:3 core:2 pu:1")));
  CHECK(share.take(ProcessId{1}, 4) == "1,2,3,4");
  CHECK(share.take(ProcessId{2}, 2).empty());
  CHECK(share.take(ProcessId{2}, 1) == "5");
  share.put_back(ProcessId{1});
  CHECK(share.take(ProcessId{3}, 2) == "2,3");
  CHECK(share.take(ProcessId{4}, 2) == "1,4");
  CHECK(share.take(ProcessId{5}, 1).empty());
}

namespace {

// A worker on a machine, its ranks one a slot and started as the coordinator orders it: as many
// threads as a slot has cores (coordinator/cluster/orders.cc).
struct Machine {
  Machine(const std::string& topology, const OfferWish& wished)
      : all(synthetic_cores(topology)),
        given(cores_beside_agent(all)),
        share(given),
        offer(offer_of(wished, usable(), given)),
        threads(std::max(1U, offer.cores / offer.slots)) {
    for (std::uint64_t rank = 1; rank <= offer.slots; ++rank) {
      lists.push_back(share.take(ProcessId{rank}, threads));
    }
  }

  std::uint32_t usable() const {
    std::size_t cpus = 0;
    for (const Core& core : all) cpus += 1 + core.siblings.size();
    return static_cast<std::uint32_t>(cpus);
  }

  std::vector<Core> all;
  std::vector<Core> given;
  CoreShare share;
  Offer offer;
  std::uint32_t threads;
  std::vector<std::string> lists;  // of each rank
};

using Lists = std::vector<std::string>;

}  // namespace

TEST_CASE("cores: on eight cores every rank is bound, and the first core is the agent's") {
  const std::string eight = "package:1 core:8 pu:1";
  const Machine default_slots(eight, {});
  CHECK(default_slots.offer == Offer{.slots = 7, .cores = 7});
  CHECK(default_slots.lists == Lists{"1", "2", "3", "4", "5", "6", "7"});
  const Machine one(eight, {.slots = 1});
  CHECK(one.offer == Offer{.slots = 1, .cores = 7});
  CHECK(one.lists == Lists{"1,2,3,4,5,6,7"});
  CHECK(Machine(eight, {.slots = 2}).lists == Lists{"1,2,3", "4,5,6"});
  CHECK(Machine(eight, {.slots = 3}).lists == Lists{"1,2", "3,4", "5,6"});
  // Nodes of four, of which the agent has one core; and a last rank that has no neighbours left.
  CHECK(Machine("numa:2 core:4 pu:1", {.slots = 1}).lists == Lists{"1,2,3,4,5,6,7"});
  CHECK(Machine("numa:2 core:4 pu:1", {.slots = 2}).lists == Lists{"1,2,3", "4,5,6"});
  CHECK(Machine("numa:2 core:8 pu:1", {.slots = 5}).lists ==
        Lists{"1,2,3", "4,5,6", "8,9,10", "11,12,13", "7,14,15"});
}

TEST_CASE(
    "cores: a rank more than there are cores for stays off the agent's, as does a wider one") {
  Machine asked("package:1 core:8 pu:1", {.slots = 8});
  CHECK(asked.offer == Offer{.slots = 8, .cores = 7});
  CHECK(asked.lists == Lists{"1", "2", "3", "4", "5", "6", "7", ""});
  CHECK(asked.share.cpus() == std::vector<int>{1, 2, 3, 4, 5, 6, 7});
  // What the configuration says is announced, whether or not the cores are there.
  Machine wide("package:1 core:8 pu:1", {.slots = 1, .threads = 8});
  CHECK(wide.offer == Offer{.slots = 1, .cores = 8});
  CHECK(wide.lists == Lists{""});
  CHECK(wide.share.cpus() == std::vector<int>{1, 2, 3, 4, 5, 6, 7});
}

TEST_CASE("cores: hyperthreads are one core, for the agent, for a thread and in what is offered") {
  const std::string four = "package:1 core:4 pu:2";
  Machine default_slots(four, {});
  CHECK(default_slots.usable() == 8);
  CHECK(default_slots.offer == Offer{.slots = 3, .cores = 3});
  CHECK(default_slots.lists == Lists{"2", "4", "6"});
  CHECK(Machine(four, {.slots = 1}).lists == Lists{"2,4,6"});
  // An unbound rank may run on any of them, and on neither half of the agent's core.
  CHECK(default_slots.share.cpus() == std::vector<int>{2, 3, 4, 5, 6, 7});
}

TEST_CASE("cores: a machine of one or two cores leaves none to the agent") {
  CHECK(Machine("package:1 core:2 pu:1", {}).lists == Lists{"0", "1"});
  CHECK(Machine("package:1 core:2 pu:1", {.slots = 1}).lists == Lists{"0,1"});
  CHECK(Machine("package:1 core:2 pu:2", {}).lists == Lists{"0", "2"});
  CHECK(Machine("package:1 core:1 pu:1", {}).lists == Lists{"0"});
  CHECK(Machine("package:1 core:1 pu:2", {}).offer == Offer{.slots = 1, .cores = 1});
}

TEST_CASE("cores: the cores of a rank that ended are those of the next one") {
  Machine machine("package:1 core:8 pu:1", {.slots = 2});
  REQUIRE(machine.share.take(ProcessId{3}, 3).empty());
  machine.share.put_back(ProcessId{1});
  CHECK(machine.share.take(ProcessId{3}, 3) == "1,2,3");
  machine.share.put_back(ProcessId{2});
  machine.share.put_back(ProcessId{3});
  CHECK(machine.share.take(ProcessId{4}, 7) == "1,2,3,4,5,6,7");
}

TEST_CASE("cores: where none are given, all logical ones are offered") {
  CHECK(offer_of({}, 8, {}) == Offer{.slots = 8, .cores = 8});
  CHECK(offer_of({.slots = 2}, 8, {}) == Offer{.slots = 2, .cores = 8});
  CHECK(offer_of({.slots = 2, .threads = 3}, 8, {}) == Offer{.slots = 2, .cores = 6});
  CHECK(CoreShare({}).cpus().empty());
}

TEST_CASE("cores: of more than two, the first is the agent's") {
  CHECK(cores_beside_agent(cores_of({0, 2, 4, 6})) == cores_of({2, 4, 6}));
  CHECK(cores_beside_agent(cores_of({0, 1})) == cores_of({0, 1}));
  CHECK(cores_beside_agent({}).empty());
}

TEST_CASE("cores: those of this machine that the process may use, one of each physical core") {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  REQUIRE(::sched_getaffinity(0, sizeof allowed, &allowed) == 0);
  const std::vector<Core> cores = physical_cores();
  REQUIRE_FALSE(cores.empty());
  CHECK(cores.size() <= static_cast<std::size_t>(CPU_COUNT(&allowed)));
  for (const Core& core : cores) {
    CHECK(CPU_ISSET(static_cast<std::size_t>(core.cpu), &allowed));
    for (const int sibling : core.siblings) {
      CHECK(CPU_ISSET(static_cast<std::size_t>(sibling), &allowed));
    }
    CHECK(core.node >= 0);
  }
}

TEST_CASE("cores: one worker of a machine gives its cores away, the next one when it is gone") {
  const test::TemporaryFolder folder;
  FileDescriptor first = claim_cores(folder.path());
  CHECK(first);
  CHECK_FALSE(claim_cores(folder.path()));
  CHECK(rank_cores(folder.path()).cores.empty());
  first.reset();
  CHECK(claim_cores(folder.path()));
  CHECK_FALSE(claim_cores(folder.path() / "nowhere"));
}
