// A gang goes where its devices are joined: one island of a node, else one socket, else one node;
// and links are never what keeps it from a place.
#include <fmt/core.h>

#include <catch2/catch.hpp>

#include <algorithm>
#include <set>

#include "coordinator/scheduler/capacity.h"
#include "coordinator/scheduler/policies/together.h"
#include "protocol/base/rng.h"
#include "tests/unit/coordinator/cluster_driver.h"

namespace tutti::coordinator::test {

using namespace scheduler;

namespace {

constexpr const char* kProfile = "sm_90-fp32-cublaslt-130000";

std::vector<std::string> devices_of(const std::vector<wire::StartRank>& starts) {
  std::vector<std::string> out;
  for (const wire::StartRank& start : starts) out.push_back(start.device);
  std::ranges::sort(out);
  return out;
}

std::vector<wire::DeviceState> devices(const std::string& worker, std::uint32_t count) {
  std::vector<wire::DeviceState> out;
  for (std::uint32_t slot = 0; slot < count; ++slot)
    out.push_back({.uuid = fmt::format("{}-{}", worker, slot), .name = "H100", .memory_bytes = 1});
  return out;
}

// GPUs of which those with one letter are linked, each to the next; a blank has no link. Of the
// sockets the first half hangs on 0.
std::vector<wire::DeviceReading> readings(const std::string& worker, std::string_view islands) {
  std::vector<wire::DeviceReading> out;
  for (std::size_t slot = 0; slot < islands.size(); ++slot) {
    wire::DeviceReading reading{.uuid = fmt::format("{}-{}", worker, slot)};
    const auto next = islands.find(islands[slot], slot + 1);
    if (islands[slot] != ' ' && next != std::string_view::npos)
      reading.links.push_back({fmt::format("{}-{}", worker, next), 4});
    reading.socket = slot < islands.size() / 2 ? 0 : 1;
    out.push_back(std::move(reading));
  }
  return out;
}

void join(Driver& driver, const std::string& worker, std::string_view islands) {
  driver.join_gpus(worker, static_cast<std::uint32_t>(islands.size()), kProfile);
  driver.beat(worker, {}, readings(worker, islands));
}

spec::JobSpec gang(std::uint32_t ranks, const char* policy = "first-fit") {
  spec::JobSpec spec = train_spec(ranks);
  spec.resources.policy = policy;
  return spec;
}

}  // namespace

TEST_CASE("links: islands are what is joined, also through others; a socket is as it is told") {
  CHECK(islands_of(devices("a", 6), readings("a", "xyxyx ")) == SlotGroups{0, 1, 0, 1, 0, 5});
  CHECK(islands_of(devices("a", 2), readings("a", "  ")).empty());
  CHECK(islands_of(devices("a", 2), {}).empty());
  CHECK(sockets_of(devices("a", 4), readings("a", "    ")) == SlotGroups{0, 0, 1, 1});
  auto told_in_part = readings("a", "    ");
  told_in_part[2].socket = -1;
  CHECK(sockets_of(devices("a", 4), told_in_part).empty());
}

TEST_CASE("links: a gang takes the smallest island that has room, else the fewest, largest first") {
  const SlotGroups islands{0, 1, 0, 1, 0, 5};
  const SlotGroups sockets{0, 0, 0, 1, 1, 1};
  const SlotGroups* const levels[] = {&islands, &sockets};
  const auto chosen = [&](std::vector<std::uint32_t> free, std::uint32_t wanted,
                          std::vector<std::uint32_t> beside = {}) {
    return choose_together({.slots = std::move(free), .wanted = wanted, .beside = beside}, levels);
  };
  const std::vector<std::uint32_t> all{0, 1, 2, 3, 4, 5};
  CHECK(chosen(all, 1) == std::vector<std::uint32_t>{5});
  CHECK(chosen(all, 2) == std::vector<std::uint32_t>{1, 3});
  CHECK(chosen(all, 3) == std::vector<std::uint32_t>{0, 2, 4});
  CHECK(chosen(all, 4) == std::vector<std::uint32_t>{0, 2, 4, 5});
  // Two of an island's three are on one socket.
  CHECK(chosen({0, 1, 2, 4}, 2) == std::vector<std::uint32_t>{0, 2});
  // Who joins a gang goes to its island.
  CHECK(chosen({1, 2, 3, 4, 5}, 1, {0}) == std::vector<std::uint32_t>{2});
}

TEST_CASE("links: a gang is placed on one island of a node, whose event says so") {
  Driver driver;
  join(driver, "a", "xyxy");
  const JobId job = driver.submit(gang(2));
  CHECK(devices_of(driver.take<wire::StartRank>()) == std::vector<std::string>{"a-0", "a-2"});
  const auto said = std::ranges::find_if(driver.events(), [&](const Event& event) {
    return event.job == job && event.kind == EventKind::placed;
  });
  REQUIRE(said != driver.events().end());
  CHECK(said->message == "2 ranks on a, joined by links");
}

TEST_CASE("links: of several nodes a gang goes to one that joins all of it, unless it is spread") {
  const auto placed = [](const spec::JobSpec& spec) {
    Driver driver;
    join(driver, "a", "  ");
    join(driver, "b", "      ");  // three on each socket
    join(driver, "c", "xxxx    ");
    driver.submit(spec);
    return devices_of(driver.take<wire::StartRank>());
  };
  CHECK(placed(gang(4)) == std::vector<std::string>{"c-0", "c-1", "c-2", "c-3"});
  CHECK(placed(gang(4, "packed")) == std::vector<std::string>{"c-0", "c-1", "c-2", "c-3"});
  CHECK(placed(gang(6)) == std::vector<std::string>{"b-0", "b-1", "b-2", "b-3", "b-4", "b-5"});
  CHECK(placed(gang(3, "spread")) == std::vector<std::string>{"a-0", "b-0", "c-4"});
}

TEST_CASE("links: a rank that is replaced comes to the island of those that are left") {
  Driver driver;
  join(driver, "a", "xxxxyy");
  driver.submit(run_spec(1));
  REQUIRE(devices_of(driver.run_up()) == std::vector<std::string>{"a-4"});
  driver.submit(gang(2));
  const auto starts = driver.run_up();
  REQUIRE(devices_of(starts) == std::vector<std::string>{"a-0", "a-1"});
  driver.exited(starts[1], 0, 9, wire::FailureClass::infrastructure);
  const auto again = driver.take<wire::StartRank>();
  CHECK(devices_of(again) == std::vector<std::string>{"a-1"});
}

TEST_CASE("links: whatever is joined, as many ranks fit as without, each on a slot of its own") {
  Rng rng(11);
  for (int round = 0; round < 400; ++round) {
    NodeState node;
    node.name = "n";
    const auto slots = static_cast<std::uint32_t>(1 + rng.below(8));
    node.total = {.slots = slots, .cores = slots, .memory_bytes = 1};
    for (std::uint32_t slot = 0; slot < slots; ++slot) {
      if (rng.chance(0.4)) node.taken.push_back(slot);
    }
    node.used = {.slots = node.taken.size(), .cores = node.taken.size()};
    NodeState joined = node;
    for (std::uint32_t slot = 0; slot < slots; ++slot) {
      joined.islands.push_back(static_cast<std::uint32_t>(rng.below(3)));
      if (rng.chance(0.8)) joined.sockets.push_back(static_cast<std::uint32_t>(rng.below(2)));
    }
    const auto wanted = static_cast<std::uint32_t>(rng.below(slots + 2));
    const auto plain = free_slots({}, node, wanted);
    const auto chosen = free_slots({}, joined, wanted);
    INFO("round " << round);
    CHECK(chosen.size() == plain.size());
    const std::set<std::uint32_t> apart(chosen.begin(), chosen.end());
    CHECK(apart.size() == chosen.size());
    for (const std::uint32_t slot : chosen) {
      CHECK(slot < slots);
      CHECK_FALSE(std::ranges::binary_search(node.taken, slot));
    }
  }
}

TEST_CASE("links: a cluster of any links places the gangs that it would place without") {
  Rng rng(12);
  for (int round = 0; round < 60; ++round) {
    std::vector<std::string> nodes;
    for (std::uint64_t i = 0; i <= rng.below(4); ++i) {
      std::string islands;
      for (std::uint64_t slot = 0; slot <= rng.below(5); ++slot) islands += "xy "[rng.below(3)];
      nodes.push_back(islands);
    }
    Driver linked;
    Driver plain;
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      const std::string name = "n" + std::to_string(i);
      join(linked, name, nodes[i]);
      plain.join_gpus(name, static_cast<std::uint32_t>(nodes[i].size()), kProfile);
    }
    INFO("round " << round);
    // The first always fits where both have as much left; a second one takes what is left of it.
    const char* const policies[] = {"first-fit", "packed", "spread"};
    for (int job = 0; job < 4; ++job) {
      const spec::JobSpec spec =
          gang(static_cast<std::uint32_t>(1 + rng.below(8)), policies[rng.below(3)]);
      const JobState with = linked.job_state(linked.submit(spec));
      CHECK(with == plain.job_state(plain.submit(spec)));
    }
    CHECK(linked.take<wire::StartRank>().size() == plain.take<wire::StartRank>().size());
  }
}

}  // namespace tutti::coordinator::test
