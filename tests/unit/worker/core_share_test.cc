#include <sched.h>
#include <catch2/catch.hpp>

#include <filesystem>

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
  // 1 and 2 are free, and no third beside them.
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
  CHECK(after.take(ProcessId{3}, 2).empty());
  CHECK(after.take(ProcessId{3}, 1) == "1");
}

TEST_CASE("cores: a machine of two nodes, whose cores have two threads each") {
  const std::vector<Core> cores = synthetic_cores("numa:2 core:2 pu:2");
  CHECK(cores == std::vector<Core>{{0, 0}, {2, 0}, {4, 1}, {6, 1}});
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

TEST_CASE("cores: a rank that no node holds has neighbours over the border, else none") {
  CoreShare share(cores_beside_agent(synthetic_cores("numa:3 core:2 pu:1")));
  CHECK(share.take(ProcessId{1}, 4) == "1,2,3,4");
  CHECK(share.take(ProcessId{2}, 2).empty());
  CHECK(share.take(ProcessId{2}, 1) == "5");
  share.put_back(ProcessId{1});
  CHECK(share.take(ProcessId{3}, 2) == "2,3");
  CHECK(share.take(ProcessId{4}, 2).empty());
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
