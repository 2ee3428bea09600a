#include "protocol/wire/sequencer.h"

#include <catch2/catch.hpp>

#include <algorithm>
#include <string>

#include "protocol/base/rng.h"

namespace tutti::wire {
namespace {

using std::chrono::milliseconds;

Instant at(int ms) { return {milliseconds(ms)}; }

TEST_CASE("sequencer: what is pushed is due once, and again only after the wait without progress") {
  SendQueue<std::string> queue({.messages_max = 8, .resend_after = milliseconds(100)});
  CHECK_FALSE(queue.next_due().has_value());
  REQUIRE(queue.push("a").ok());
  REQUIRE(queue.push("b").ok());
  CHECK(queue.next_due() == Instant{});
  CHECK(queue.due(at(0)).size() == 2);
  CHECK(queue.due(at(50)).empty());
  CHECK(queue.next_due() == at(100));
  REQUIRE(queue.push("c").ok());
  CHECK(queue.due(at(60)) == std::vector<Numbered<std::string>>{{Sequence{3}, "c"}});
  queue.acknowledge(Sequence{1}, at(70));
  CHECK(queue.due(at(160)).empty());
  CHECK(queue.due(at(170)) ==
        std::vector<Numbered<std::string>>{{Sequence{2}, "b"}, {Sequence{3}, "c"}});
  queue.acknowledge(Sequence{3}, at(180));
  CHECK(queue.empty());
}

TEST_CASE("sequencer: a full queue refuses, and what was never sent cannot be acknowledged") {
  SendQueue<std::string> queue({.messages_max = 2, .resend_after = milliseconds(100)});
  REQUIRE(queue.push("a").ok());
  CHECK(queue.due(at(0)).size() == 1);
  REQUIRE(queue.push("b").ok());
  const auto refused = queue.push("c");
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.error().code == ErrorCode::exhausted);
  queue.acknowledge(Sequence{99}, at(1));
  CHECK(queue.size() == 1);
  CHECK(queue.unacknowledged().front().message == "b");
}

TEST_CASE("sequencer: a new session numbers what is left from one, or forgets it") {
  SendQueue<std::string> queue;
  for (const char* text : {"a", "b", "c"}) REQUIRE(queue.push(text).ok());
  CHECK(queue.due(at(0)).size() == 3);
  queue.acknowledge(Sequence{2}, at(1));
  queue.restart();
  CHECK(queue.due(at(1)) == std::vector<Numbered<std::string>>{{Sequence{1}, "c"}});
  queue.clear();
  CHECK(queue.empty());
  CHECK(*queue.push("d") == Sequence{1});
}

TEST_CASE(
    "sequencer: over a link that loses, repeats and reorders, everything arrives once and in "
    "order") {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    Rng rng(seed);
    SendQueue<int> queue({.messages_max = 1000, .resend_after = milliseconds(20)});
    ReceiveGate gate;
    std::vector<Numbered<int>> flying;
    std::vector<int> taken;
    int pushed = 0;
    for (int now = 0; now < 20'000 && taken.size() < 200; ++now) {
      if (pushed < 200 && rng.chance(0.1)) REQUIRE(queue.push(pushed++).ok());
      for (const auto& message : queue.due(at(now))) {
        if (flying.size() >= 300) continue;  // what a full link cannot hold is lost
        if (rng.chance(0.7)) flying.push_back(message);
        if (rng.chance(0.2)) flying.push_back(message);
      }
      if (flying.empty()) continue;
      const std::size_t window = std::min<std::size_t>(flying.size(), 5);
      const auto which = static_cast<std::ptrdiff_t>(rng.below(window));
      const Numbered<int> arrived = flying[static_cast<std::size_t>(which)];
      flying.erase(flying.begin() + which);
      if (gate.admit(arrived.sequence) == ReceiveGate::Verdict::take)
        taken.push_back(arrived.message);
      if (rng.chance(0.7)) queue.acknowledge(gate.taken(), at(now));
    }
    REQUIRE(taken.size() == 200);
    for (int i = 0; i < 200; ++i) CHECK(taken[static_cast<std::size_t>(i)] == i);
  }
}

}  // namespace
}  // namespace tutti::wire
