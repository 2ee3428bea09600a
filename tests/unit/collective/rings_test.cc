// What only links in shared memory can get wrong: sleeping, and deaths that memory does not tell.
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <numeric>
#include <thread>

#include "tests/unit/collective/rank_threads.h"

namespace tutti::kernels {
namespace {

using Direction = Transfer::Direction;

std::span<std::byte> bytes_of(std::vector<std::uint32_t>& values) {
  return std::as_writable_bytes(std::span(values));
}

// Sends counted numbers to the next rank while it receives from the one before.
bool pass_around(Communicator& group, std::size_t count, std::uint32_t round) {
  const std::uint32_t size = group.size();
  std::vector<std::uint32_t> out(count);
  std::vector<std::uint32_t> in(count);
  std::vector<std::uint32_t> expected(count);
  const std::uint32_t before = (group.rank() + size - 1) % size;
  std::iota(out.begin(), out.end(), 7 * group.rank() + round);
  std::iota(expected.begin(), expected.end(), 7 * before + round);
  const Transfer transfers[] = {{Direction::send, (group.rank() + 1) % size, bytes_of(out)},
                                {Direction::receive, before, bytes_of(in)}};
  return group.exchange(transfers).ok() && in == expected;
}

TEST_CASE("rings: ranks that sleep at once and ranks that look first lose no wake-up") {
  for (const Duration spin : {Duration::zero(), Duration(std::chrono::microseconds(20))}) {
    std::array<bool, 3> right{};
    test::run_ranks({.size = 3, .ring_bytes = 4096, .spin = spin},
                    [&](std::unique_ptr<Communicator> group) {
                      bool all = true;
                      for (std::uint32_t round = 0; round < 300 && all; ++round) {
                        all = pass_around(*group, 1 + round % 7 * 911, round);
                      }
                      right[group->rank()] = all;
                    });
    CHECK(right == std::array{true, true, true});
  }
}

TEST_CASE("rings: they are used where both ranks want them, and the sockets else") {
  for (const std::uint64_t of_second : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{8192}}) {
    auto first = *Listener::open({});
    auto second = *Listener::open({});
    FormOptions form{
        .addresses = {first->address(), second->address()}, .generation = 1, .secret = "s"};
    bool right = false;
    std::thread other([&, form]() mutable {
      form.rank = 1;
      form.ring_bytes = of_second;
      auto group = second->connect(form);
      right = group.ok() && pass_around(**group, 100'000, 3);
    });
    auto group = first->connect(form);
    REQUIRE(group.ok());
    CHECK(pass_around(**group, 100'000, 3));
    other.join();
    CHECK(right);
  }
}

TEST_CASE("rings: a process that dies in the middle of a transfer is seen, both ways") {
  for (const auto direction : {Direction::send, Direction::receive}) {
    auto first = *Listener::open({});
    auto second = *Listener::open({});
    FormOptions form{
        .addresses = {first->address(), second->address()}, .generation = 1, .secret = "s"};
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      form.rank = 1;
      auto group = second->connect(form);
      if (group) (void)pass_around(**group, 100, 1);
      ::_exit(0);  // without a word, while the parent moves more than the rings hold
    }
    second.reset();
    auto group = first->connect(form);
    REQUIRE(group.ok());
    CHECK(pass_around(**group, 100, 1));
    std::vector<std::uint32_t> values(4'000'000);
    const Transfer transfer{direction, 1, bytes_of(values)};
    CHECK((*group)->exchange(std::span(&transfer, 1)).error().code == ErrorCode::unavailable);
    CHECK((*group)->lost_peer() == 1);
    REQUIRE(::waitpid(child, nullptr, 0) == child);
  }
}

}  // namespace
}  // namespace tutti::kernels
