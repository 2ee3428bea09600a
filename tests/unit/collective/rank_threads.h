// Ranks as threads of the test: opens a listener for each, connects them, and runs one function per
// rank.
#pragma once

#include <catch2/catch.hpp>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "kernels/collective/communicator.h"
#include "tests/support/patience.h"

namespace tutti::test {

std::uint64_t ring_bytes_of_suite();

struct GroupOptions {
  std::uint32_t size = 2;
  std::string host = {};  // empty: Unix sockets
  Duration operation_deadline = patient(std::chrono::seconds(20));
  std::uint64_t ring_bytes = ring_bytes_of_suite();
  Duration spin = kernels::FormOptions{}.spin;
};

// What a suite is about: the group as it is, over rings or sockets (plain_groups.cc,
// socket_groups.cc), or another one over it (tests/emulation/nccl_groups.cc). `id` is the same for
// all ranks of one group.
std::unique_ptr<kernels::Communicator> wrap_group(std::unique_ptr<kernels::Communicator> group,
                                                  const std::string& id);
std::string make_group_id();

using RankFunction = std::function<void(std::unique_ptr<kernels::Communicator>)>;

// Returns once all ranks' functions have; a rank that could not connect fails the test.
inline void run_ranks(const GroupOptions& options, const RankFunction& rank_function) {
  std::vector<std::unique_ptr<kernels::Listener>> listeners;
  kernels::FormOptions form;
  for (std::uint32_t rank = 0; rank < options.size; ++rank) {
    auto listener = kernels::Listener::open({options.host});
    REQUIRE(listener.ok());
    form.addresses.push_back((*listener)->address());
    listeners.push_back(*std::move(listener));
  }
  form.generation = 7;
  form.secret = "a secret of this test";
  form.operation_deadline = options.operation_deadline;
  form.ring_bytes = options.ring_bytes;
  form.spin = options.spin;
  const std::string id = make_group_id();
  std::vector<std::string> failures(options.size);
  std::vector<std::thread> threads;
  for (std::uint32_t rank = 0; rank < options.size; ++rank) {
    threads.emplace_back([&, rank] {
      kernels::FormOptions own = form;
      own.rank = rank;
      auto group = listeners[rank]->connect(own);
      if (!group) {
        failures[rank] = group.error().message;
        return;
      }
      rank_function(wrap_group(*std::move(group), id));
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& failure : failures) CHECK(failure == "");
}

}  // namespace tutti::test
