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

// GPUs of one socket without links, each pair measured: GB/s by pairs, "01 02 12" and so on.
std::vector<wire::DeviceReading> measured(const std::string& worker, std::uint32_t count,
                                          const std::vector<std::uint32_t>& gb_per_s) {
  std::vector<wire::DeviceReading> out(count);
  auto next = gb_per_s.begin();
  for (std::uint32_t to = 0; to < count; ++to) {
    out[to].uuid = fmt::format("{}-{}", worker, to);
    for (std::uint32_t from = 0; from < to; ++from, ++next) {
      const std::string peer = fmt::format("{}-{}", worker, from);
      out[to].links.push_back({.uuid = peer, .mb_per_s = 1'000 * *next});
    }
  }
  REQUIRE(next == gb_per_s.end());
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

TEST_CASE("links: pairs are classes of speeds that are nearly alike, the slower direction counts") {
  auto told = measured("a", 3, {100, 90, 40});  // 0-1, 0-2, 1-2
  const LinkSpeeds speeds = speeds_of(devices("a", 3), told);
  CHECK(speeds.measured);
  CHECK(speeds.slowest == 1);
  CHECK(speeds.class_of(0, 1) == 0);
  CHECK(speeds.class_of(2, 0) == 0);
  CHECK(speeds.class_of(1, 2) == 1);
  const std::vector<std::uint32_t> all{0, 1, 2};
  CHECK(slowest_link(speeds, all) == 40'000);
  CHECK(slowest_link(speeds, std::vector<std::uint32_t>{1}) == 0);
  told[0].links.push_back({.uuid = "a-1", .mb_per_s = 30'000});
  CHECK(speeds_of(devices("a", 3), told).class_of(0, 1) == 2);
  // One pair that was not measured: links count, and there are none.
  told[2].links.pop_back();
  CHECK(speeds_of(devices("a", 3), told).empty());
  told[0].links.push_back({.uuid = "a-2", .count = 2});
  const LinkSpeeds counted = speeds_of(devices("a", 3), told);
  CHECK_FALSE(counted.measured);
  CHECK(counted.class_of(2, 0) == 0);
  CHECK(counted.class_of(0, 1) == 1);
  CHECK(slowest_link(counted, all) == 0);
  CHECK(speeds_of(devices("a", 1), measured("a", 1, {})).empty());
}

TEST_CASE("links: a gang takes the slots whose slowest measured link is fastest") {
  // 1 and 3 are slow with 0; 1, 2 and 3 with each other are fast, 0 and 2 in between.
  const SlotGroups none;
  const LinkSpeeds speeds = speeds_of(
      devices("a", 4), measured("a", 4, {/*01*/ 10, /*02*/ 20, /*12*/ 50, /*03*/ 10, 49, 51}));
  const auto chosen = [&](std::vector<std::uint32_t> free, std::uint32_t wanted,
                          std::vector<std::uint32_t> beside = {}) {
    return choose_joined({.slots = std::move(free), .wanted = wanted, .beside = beside},
                         {none, none, speeds});
  };
  CHECK(chosen({0, 1, 2, 3}, 2) == std::vector<std::uint32_t>{1, 2});
  CHECK(chosen({0, 1, 2, 3}, 3) == std::vector<std::uint32_t>{1, 2, 3});
  CHECK(chosen({0, 1, 3}, 2) == std::vector<std::uint32_t>{1, 3});
  CHECK(chosen({0, 1, 2}, 2) == std::vector<std::uint32_t>{1, 2});
  CHECK(chosen({0, 1, 2, 3}, 4) == std::vector<std::uint32_t>{0, 1, 2, 3});
  CHECK(chosen({0, 1, 2, 3}, 9).size() == 4);
  // One alone leaves the fast ones to gangs; who joins one goes where it is fast.
  CHECK(chosen({0, 1, 2, 3}, 1) == std::vector<std::uint32_t>{0});
  CHECK(chosen({1, 2, 3}, 1, {0}) == std::vector<std::uint32_t>{2});
}

TEST_CASE("links: of two islands a gang takes the faster, and a link that fails joins nothing") {
  const auto told = [](std::uint32_t first_gb_per_s) {
    auto out = measured("a", 4, {first_gb_per_s, 20, 20, 20, 20, 300});
    out[1].links[0].count = 4;  // 0-1
    out[3].links[2].count = 4;  // 2-3
    return out;
  };
  const auto placed = [&](std::uint32_t first_gb_per_s) {
    Driver driver;
    driver.join_gpus("a", 4, kProfile);
    driver.beat("a", {}, told(first_gb_per_s));
    driver.submit(gang(2));
    return devices_of(driver.take<wire::StartRank>());
  };
  CHECK(placed(300) == std::vector<std::string>{"a-0", "a-1"});
  CHECK(placed(290) == std::vector<std::string>{"a-0", "a-1"});
  CHECK(placed(200) == std::vector<std::string>{"a-2", "a-3"});
  CHECK(islands_of(devices("a", 4), told(200)) == SlotGroups{0, 0, 2, 2});
  CHECK(islands_of(devices("a", 4), told(100)) == SlotGroups{0, 1, 2, 2});
}

TEST_CASE(
    "links: of nodes that join a gang the fastest takes it, an unmeasured one counts as fast") {
  const auto placed = [](std::uint32_t of_a, std::uint32_t of_b, std::uint32_t of_c) {
    Driver driver;
    const std::pair<const char*, std::uint32_t> nodes[] = {{"a", of_a}, {"b", of_b}, {"c", of_c}};
    for (const auto& [name, gb_per_s] : nodes) {
      driver.join_gpus(name, 2, kProfile);
      auto told = measured(name, 2, {gb_per_s});
      told[1].links[0].count = 4;
      driver.beat(name, {}, std::move(told));
    }
    driver.submit(gang(2));
    return devices_of(driver.take<wire::StartRank>()).at(0);
  };
  CHECK(placed(100, 400, 300) == "b-0");
  CHECK(placed(380, 400, 390) == "a-0");
  CHECK(placed(100, 0, 400) == "b-0");
  CHECK(placed(0, 400, 400) == "a-0");
}

TEST_CASE("links: whatever was measured, no choice of as many slots has a faster slowest link") {
  Rng rng(13);
  for (int round = 0; round < 300; ++round) {
    const auto slots = static_cast<std::uint32_t>(2 + rng.below(6));
    std::vector<std::uint32_t> pairs(slots * (slots - 1) / 2);
    for (std::uint32_t& pair : pairs) pair = std::uint32_t{10} << rng.below(4);
    const LinkSpeeds speeds = speeds_of(devices("n", slots), measured("n", slots, pairs));
    std::vector<std::uint32_t> free;
    for (std::uint32_t slot = 0; slot < slots; ++slot) {
      if (rng.chance(0.7)) free.push_back(slot);
    }
    const auto wanted = static_cast<std::uint32_t>(rng.below(slots + 1));
    const SlotGroups none;
    const auto chosen = choose_joined({.slots = free, .wanted = wanted}, {none, none, speeds});
    INFO("round " << round);
    REQUIRE(chosen.size() == std::min<std::size_t>(wanted, free.size()));
    CHECK(std::set<std::uint32_t>(chosen.begin(), chosen.end()).size() == chosen.size());
    std::uint32_t best = 0;
    for (std::uint32_t set = 0; set < (1U << free.size()); ++set) {
      std::vector<std::uint32_t> other;
      for (std::size_t i = 0; i < free.size(); ++i) {
        if ((set >> i & 1U) != 0) other.push_back(free[i]);
      }
      if (other.size() == chosen.size()) best = std::max(best, slowest_link(speeds, other));
    }
    CHECK(slowest_link(speeds, chosen) == best);
  }
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
