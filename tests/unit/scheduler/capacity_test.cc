#include <catch2/catch.hpp>

#include "coordinator/scheduler/capacity.h"
#include "coordinator/scheduler/outlook.h"
#include "coordinator/scheduler/policies/policies.h"
#include "protocol/base/rng.h"

namespace tutti::coordinator::scheduler {
namespace {

NodeState node(const std::string& name, std::uint64_t slots, std::uint64_t used = 0) {
  NodeState out;
  out.name = name;
  out.total = {.slots = slots, .cores = slots * 2, .memory_bytes = slots * 100};
  out.used = {.slots = used, .cores = used * 2, .memory_bytes = used * 100};
  for (std::uint32_t slot = 0; slot < used; ++slot) out.taken.push_back(slot);
  return out;
}

Shape asking(std::uint64_t cores, std::uint64_t memory_bytes = 0) {
  Shape out;
  out.cores = cores;
  out.memory_bytes = memory_bytes;
  return out;
}

std::vector<Share> chosen(Capacity& capacity, const char* policy, std::uint32_t wanted,
                          const Shape& shape = {}) {
  std::vector<Share> out;
  for (const auto& [preference, tier] : capacity.tiers(shape)) {
    std::uint32_t left = wanted;
    for (const Share& share : out) left -= share.ranks;
    policy_of(policy).choose(tier, left, out);
  }
  std::erase_if(out, [](const Share& share) { return share.ranks == 0; });
  return out;
}

TEST_CASE("capacity: the scarcest of slots, cores and memory decides what fits") {
  Capacity capacity;
  capacity.set(node("a", 4));
  CHECK(capacity.sum({}).now == 4);
  CHECK(capacity.sum(asking(4)).now == 2);
  CHECK(capacity.sum(asking(1, 150)).now == 2);
  capacity.set(node("a", 4, 3));
  CHECK(capacity.sum(asking(4)).now == 0);
  CHECK(capacity.sum(asking(4)).ever == 2);
  capacity.erase("a");
  CHECK(capacity.sum(asking(4)).ever == 0);
  CHECK(capacity.sum({}).now == 0);
}

TEST_CASE("capacity: labels are asked for in full, and preferred ones come first") {
  Capacity capacity;
  NodeState near = node("z", 2);
  near.labels = {"zone=a", "disk=fast"};
  capacity.set(node("a", 2));
  capacity.set(near);
  Shape asks;
  asks.labels = {"zone=a"};
  CHECK(capacity.sum(asks).now == 2);
  asks.labels = {"zone=a", "disk=slow"};
  CHECK(capacity.sum(asks).ever == 0);
  Shape prefers;
  prefers.prefer = {"disk=fast"};
  CHECK(chosen(capacity, "first-fit", 3, prefers) == std::vector<Share>{{"z", 2}, {"a", 1}});
  near.labels.clear();
  capacity.set(near);
  CHECK(chosen(capacity, "first-fit", 3, prefers) == std::vector<Share>{{"a", 2}, {"z", 1}});
}

TEST_CASE("policies: first fit goes by name, packed fills up, spread takes one a node") {
  Capacity capacity;
  capacity.set(node("a", 8));
  capacity.set(node("b", 8, 5));
  capacity.set(node("c", 8, 6));
  CHECK(chosen(capacity, "first-fit", 3) == std::vector<Share>{{"a", 3}});
  CHECK(chosen(capacity, "packed", 2) == std::vector<Share>{{"c", 2}});
  CHECK(chosen(capacity, "packed", 3) == std::vector<Share>{{"b", 3}});
  CHECK(chosen(capacity, "packed", 10) == std::vector<Share>{{"a", 8}, {"c", 2}});
  CHECK(chosen(capacity, "spread", 3) == std::vector<Share>{{"a", 1}, {"b", 1}, {"c", 1}});
  CHECK(chosen(capacity, "spread", 9) == std::vector<Share>{{"a", 4}, {"b", 3}, {"c", 2}});
}

TEST_CASE(
    "policies: whatever there is, each gives as many ranks as fit and no more than a node has") {
  Rng rng(3);
  for (int round = 0; round < 300; ++round) {
    Capacity capacity;
    std::uint64_t total = 0;
    std::map<std::string, std::uint64_t> room;
    for (std::uint64_t i = 0; i <= rng.below(6); ++i) {
      const std::uint64_t slots = 1 + rng.below(5);
      const std::uint64_t used = rng.below(slots + 1);
      const std::string name = "n" + std::to_string(i);
      capacity.set(node(name, slots, used));
      room[name] = slots - used;
      total += slots - used;
    }
    const auto wanted = static_cast<std::uint32_t>(1 + rng.below(total + 1));
    for (const Policy& policy : policies()) {
      std::uint64_t given = 0;
      std::map<std::string, std::uint64_t> on;
      for (const Share& share : chosen(capacity, policy.name.data(), wanted)) {
        given += share.ranks;
        on[share.node] += share.ranks;
      }
      INFO(policy.name << " of round " << round);
      CHECK(given == std::min<std::uint64_t>(wanted, total));
      for (const auto& [name, ranks] : on) CHECK(ranks <= room[name]);
    }
  }
}

TEST_CASE("capacity: what is held is free for nobody else, and comes back") {
  Capacity capacity;
  capacity.set(node("a", 4, 1));
  capacity.hold("a", {.slots = 2});
  CHECK(capacity.sum({}).now == 1);
  CHECK(capacity.sum({}).free == 3);
  capacity.hold("a", {});
  CHECK(capacity.sum({}).now == 3);
}

TEST_CASE("capacity: sums stay those of a fresh look, whatever happened") {
  Rng rng(5);
  Capacity capacity;
  std::map<std::string, NodeState> nodes;
  Shape labelled = asking(0, 150);
  labelled.labels = {"x"};
  Shape large;
  large.device_memory_bytes = 2;
  const Shape shapes[] = {{}, asking(3), labelled, large};
  for (int round = 0; round < 2'000; ++round) {
    const std::string name = "n" + std::to_string(rng.below(9));
    const std::uint64_t slots = 1 + rng.below(4);
    NodeState state = node(name, slots, rng.below(slots + 1));
    state.usable = rng.chance(0.8);
    if (rng.chance(0.5)) state.labels = {"x"};
    if (rng.chance(0.5)) {
      for (std::uint64_t slot = 0; slot < slots; ++slot) state.devices.push_back(rng.below(3));
    }
    if (rng.chance(0.2)) {
      capacity.erase(name);
      nodes.erase(name);
    } else {
      capacity.set(state);
      nodes[name] = state;
    }
    if (rng.chance(0.3)) capacity.hold(name, {.slots = rng.below(3)});
    if (round % 50 != 0) continue;
    Capacity fresh;
    for (const auto& [each, its] : nodes) fresh.set(its);
    for (const auto& [each, amount] : capacity.holds()) fresh.hold(each, amount);
    for (const Shape& shape : shapes) {
      CHECK(capacity.sum(shape).now == fresh.sum(shape).now);
      CHECK(capacity.sum(shape).free == fresh.sum(shape).free);
      CHECK(capacity.sum(shape).ever == fresh.sum(shape).ever);
      CHECK(chosen(capacity, "packed", 5, shape) == chosen(fresh, "packed", 5, shape));
    }
  }
}

TEST_CASE("capacity: where a node's devices differ, each slot counts with its own") {
  Capacity capacity;
  NodeState mixed = node("a", 4);
  mixed.devices = {80, 24, 80, 24};
  mixed.device_memory_bytes = 24;
  Shape small;
  small.device_memory_bytes = 20;
  Shape large;
  large.device_memory_bytes = 40;
  Shape never;
  never.device_memory_bytes = 100;
  capacity.set(mixed);
  CHECK(capacity.sum(small).now == 4);
  CHECK(capacity.sum(large).now == 2);
  CHECK(capacity.sum(never).ever == 0);
  CHECK(capacity.why_not(never, mixed).find("its devices have 0.0 GiB") != std::string::npos);
  // Who asks for little is given the small ones.
  CHECK(free_slots(small, mixed, 3) == std::vector<std::uint32_t>{1, 3, 0});
  CHECK(free_slots(large, mixed, 3) == std::vector<std::uint32_t>{0, 2});
  mixed.taken = {0};
  mixed.endless_slots = {0};
  mixed.used = mixed.endless = {.slots = 1, .cores = 2, .memory_bytes = 100};
  capacity.set(mixed);
  CHECK(capacity.sum(small).now == 3);
  CHECK(capacity.sum(large).now == 1);
  CHECK(capacity.sum(large).beside_endless == 1);
  CHECK(capacity.sum(large).ever == 2);
  // What is held may be the large one.
  capacity.hold("a", {.slots = 1});
  CHECK(capacity.sum(small).now == 2);
  CHECK(capacity.sum(large).now == 0);
  CHECK(capacity.sum(large).free == 1);
  capacity.hold("a", {});
  mixed.taken = {0, 2};
  mixed.used = {.slots = 2, .cores = 4, .memory_bytes = 200};
  capacity.set(mixed);
  CHECK(capacity.sum(small).now == 2);
  CHECK(capacity.sum(large).now == 0);
  CHECK(capacity.why_not(large, mixed) == "its devices with 0.0 GiB of memory are taken");
}

TEST_CASE("outlook: only who holds a device that suits helps") {
  Capacity capacity;
  NodeState mixed = node("a", 2, 2);
  mixed.devices = {24, 80};
  mixed.device_memory_bytes = 24;
  capacity.set(mixed);
  Shape large;
  large.device_memory_bytes = 40;
  Outlook outlook(capacity, large, 1);
  const std::vector<Holding> on_small = {{"a", {1, 2, 100}, {0}}};
  const std::vector<Holding> on_large = {{"a", {1, 2, 100}, {1}}};
  CHECK_FALSE(outlook.may_help(on_small));
  CHECK(outlook.may_help(on_large));
  outlook.release(on_small);
  CHECK_FALSE(outlook.enough());
  outlook.release(on_large);
  CHECK(outlook.enough());
  outlook.take_back(on_large);
  CHECK_FALSE(outlook.enough());
}

TEST_CASE("outlook: says who has to let go, on real nodes and not in sum") {
  Capacity capacity;
  capacity.set(node("a", 2, 2));
  capacity.set(node("b", 2, 2));
  const Shape wide = asking(4);  // a whole node a rank
  Outlook outlook(capacity, wide, 1);
  const std::vector<Holding> first = {{"a", {1, 2, 100}, {0}}};
  const std::vector<Holding> second = {{"b", {1, 2, 100}, {0}}};
  outlook.release(first);
  outlook.release(second);
  CHECK_FALSE(outlook.enough());
  outlook.release(first);
  CHECK(outlook.enough());
  CHECK(outlook.choose() == std::vector<Share>{{"a", 1}});
  outlook.take_back(second);
  CHECK(outlook.enough());
  outlook.take_back(first);
  CHECK_FALSE(outlook.enough());
}

}  // namespace
}  // namespace tutti::coordinator::scheduler
