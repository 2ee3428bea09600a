#include "kernels/collective/communicator.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <array>
#include <catch2/catch.hpp>
#include <csignal>
#include <cstring>
#include <latch>
#include <mutex>
#include <numeric>
#include <thread>

#include "kernels/collective/collectives.h"
#include "kernels/collective/handshake.h"
#include "kernels/collective/socket_address.h"
#include "tests/unit/collective/rank_threads.h"

namespace tutti::kernels {
namespace {

using Direction = Transfer::Direction;

std::span<std::byte> bytes_of(std::vector<std::uint32_t>& values) {
  return std::as_writable_bytes(std::span(values));
}

using Numbers = std::vector<std::uint32_t>;

// What goes from a rank to another: numbers that name both, of a length that does, too; of the
// smallest, some ranks have nothing for others.
Numbers from_to(std::uint32_t from, std::uint32_t to, std::size_t count) {
  Numbers numbers(count == 0 ? 0 : count - 1 + (2 * from + to) % 3);
  std::iota(numbers.begin(), numbers.end(), 1000 * from + to);
  return numbers;
}

void send_to_all(Communicator& group, std::size_t count, bool& right) {
  std::vector<Numbers> out;
  std::vector<Numbers> in;
  for (std::uint32_t peer = 0; peer < group.size(); ++peer) {
    out.push_back(from_to(group.rank(), peer, count));
    in.emplace_back(from_to(peer, group.rank(), count).size());
  }
  std::vector<std::span<std::byte>> sent;
  std::vector<std::span<std::byte>> received;
  for (Numbers& numbers : out) sent.push_back(bytes_of(numbers));
  for (Numbers& numbers : in) received.push_back(bytes_of(numbers));
  right = all_to_all(group, {sent, received}).ok();
  for (std::uint32_t peer = 0; peer < group.size(); ++peer) {
    // The own block is nobody's to write.
    const Numbers own(in[peer].size());
    right = right && in[peer] == (peer == group.rank() ? own : from_to(peer, group.rank(), count));
  }
}

TEST_CASE("all-to-all: blocks of any length arrive whole, on one machine and over TCP") {
  for (const std::string host : {"", "127.0.0.1"}) {
    for (std::uint32_t size : {1U, 2U, 4U}) {
      std::vector<std::array<bool, 3>> right(size);
      test::run_ranks({.size = size, .host = host}, [&](std::unique_ptr<Communicator> group) {
        auto& own = right[group->rank()];
        send_to_all(*group, 1, own[0]);
        send_to_all(*group, 700'000, own[1]);
        send_to_all(*group, 0, own[2]);
      });
      for (const auto& own : right) CHECK(own == std::array{true, true, true});
    }
  }
}

void gather_from_all(Communicator& group, std::size_t count, bool& right) {
  std::vector<Numbers> blocks;
  for (std::uint32_t from = 0; from < group.size(); ++from) {
    const Numbers whole = from_to(from, 0, count);
    blocks.push_back(from == group.rank() ? whole : Numbers(whole.size()));
  }
  std::vector<std::span<std::byte>> spans;
  for (Numbers& numbers : blocks) spans.push_back(bytes_of(numbers));
  right = all_gather(group, spans).ok();
  for (std::uint32_t from = 0; from < group.size(); ++from) {
    right = right && blocks[from] == from_to(from, 0, count);
  }
}

TEST_CASE("all-gather: each rank has the blocks of all, of any length") {
  for (const std::string host : {"", "127.0.0.1"}) {
    for (std::uint32_t size : {1U, 2U, 4U}) {
      std::vector<std::array<bool, 3>> right(size);
      test::run_ranks({.size = size, .host = host}, [&](std::unique_ptr<Communicator> group) {
        auto& own = right[group->rank()];
        gather_from_all(*group, 1, own[0]);
        gather_from_all(*group, 300'000, own[1]);
        gather_from_all(*group, 0, own[2]);
      });
      for (const auto& own : right) CHECK(own == std::array{true, true, true});
    }
  }
}

TEST_CASE("communicator: a rank that leaves is seen by all, whoever they wait for") {
  std::latch joined(3);
  std::latch left(1);
  std::vector<Error> errors(3);
  std::vector<std::int32_t> lost(3, -1);
  std::array<bool, 3> broken_for_good{false, false, true};
  test::run_ranks({.size = 3}, [&](std::unique_ptr<Communicator> group) {
    const std::uint32_t rank = group->rank();
    joined.arrive_and_wait();  // nobody leaves before all are there
    if (rank == 2) {
      group.reset();
      left.count_down();
      return;
    }
    left.wait();
    // Ranks 0 and 1 wait for each other only; neither is going to send.
    std::uint64_t value = 0;
    const Transfer receive{Direction::receive, 1 - rank,
                           std::as_writable_bytes(std::span(&value, 1))};
    if (rank == 0) {
      const Transfer from_departed{Direction::receive, 2, receive.bytes};
      errors[0] = group->exchange(std::span(&from_departed, 1)).error();
    } else {
      errors[1] = group->exchange(std::span(&receive, 1)).error();
    }
    lost[rank] = group->lost_peer();
    const auto again = group->exchange({});
    broken_for_good[rank] = !again.ok() && again.error().code == ErrorCode::unavailable;
  });
  CHECK(broken_for_good == std::array{true, true, true});
  CHECK(errors[0].code == ErrorCode::unavailable);
  CHECK(errors[1].code == ErrorCode::unavailable);
  CHECK(lost == std::vector<std::int32_t>{2, 2, -1});
}

TEST_CASE("communicator: a rank that finished early does not disturb those that still work") {
  std::latch finished(1);
  std::array<bool, 3> ok{};
  test::run_ranks({.size = 3}, [&](std::unique_ptr<Communicator> group) {
    const std::uint32_t rank = group->rank();
    const auto vote = exchange_votes(*group, {.step = 1});
    if (rank == 2) {
      group.reset();
      finished.count_down();
    } else {
      finished.wait();
      std::uint64_t value = rank;
      const auto bytes = std::as_writable_bytes(std::span(&value, 1));
      const Transfer transfer{rank == 0 ? Direction::send : Direction::receive, 1 - rank, bytes};
      const auto more = group->exchange(std::span(&transfer, 1));
      ok[rank] = vote.ok() && more.ok() && value == 0;
    }
  });
  CHECK(ok[0]);
  CHECK(ok[1]);
}

TEST_CASE("communicator: abort ends a blocked exchange at once and stays") {
  test::run_ranks({.size = 2}, [&](std::unique_ptr<Communicator> group) {
    std::uint64_t value = 0;
    const Transfer receive{Direction::receive, 1 - group->rank(),
                           std::as_writable_bytes(std::span(&value, 1))};
    static std::latch both(2);
    std::thread other([&] {
      both.arrive_and_wait();
      group->abort("the test says so");
      group->abort("a second reason");
    });
    const auto outcome = group->exchange(std::span(&receive, 1));
    const auto later = group->exchange({});
    other.join();
    static std::mutex mutex;
    const std::lock_guard lock(mutex);
    // The peer's own abort may be seen first, as the end of its group.
    CHECK_FALSE(outcome.ok());
    CHECK_FALSE(later.ok());
    CHECK(group->aborted());
  });
}

TEST_CASE("communicator: abort keeps its first reason") {
  test::run_ranks({.size = 1}, [](std::unique_ptr<Communicator> group) {
    group->abort("first");
    group->abort("second");
    CHECK(group->exchange({}).error() == Error{ErrorCode::aborted, "first"});
  });
}

TEST_CASE("communicator: a length that the peer does not expect is corrupt, never a mix-up") {
  std::vector<ErrorCode> codes(2, ErrorCode::internal);
  test::run_ranks({.size = 2}, [&](std::unique_ptr<Communicator> group) {
    std::vector<std::uint32_t> values(group->rank() == 0 ? 4 : 5);
    const auto direction = group->rank() == 0 ? Direction::send : Direction::receive;
    const Transfer transfer{direction, 1 - group->rank(), bytes_of(values)};
    const auto outcome = group->exchange(std::span(&transfer, 1));
    if (!outcome) codes[group->rank()] = outcome.error().code;
  });
  CHECK(codes[1] == ErrorCode::corrupt);
}

TEST_CASE("communicator: an operation in which nothing moves ends at its deadline") {
  test::run_ranks({.size = 2, .operation_deadline = std::chrono::milliseconds(20)},
                  [&](std::unique_ptr<Communicator> group) {
                    static std::latch both(2);
                    std::uint64_t value = 0;
                    const Transfer receive{Direction::receive, 1 - group->rank(),
                                           std::as_writable_bytes(std::span(&value, 1))};
                    const auto outcome = group->exchange(std::span(&receive, 1));
                    both.arrive_and_wait();
                    static std::mutex mutex;
                    const std::lock_guard lock(mutex);
                    CHECK(outcome.error().code == ErrorCode::deadline_exceeded);
                  });
}

TEST_CASE("communicator: a killed process is seen by its peer") {
  auto first = *Listener::open({});
  auto second = *Listener::open({});
  FormOptions form{.addresses = {first->address(), second->address()},
                   .generation = 1,
                   .secret = "s",
                   .ring_bytes = test::ring_bytes_of_suite()};
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    form.rank = 1;
    auto group = second->connect(form);
    std::uint64_t value = 0;
    const Transfer receive{Direction::receive, 0, std::as_writable_bytes(std::span(&value, 1))};
    if (group) (void)(*group)->exchange(std::span(&receive, 1));
    ::_exit(0);
  }
  second.reset();  // the child's copy is the only one now
  auto group = first->connect(form);
  REQUIRE(group.ok());
  REQUIRE(::kill(child, SIGKILL) == 0);
  std::uint64_t value = 0;
  const Transfer receive{Direction::receive, 1, std::as_writable_bytes(std::span(&value, 1))};
  CHECK((*group)->exchange(std::span(&receive, 1)).error().code == ErrorCode::unavailable);
  CHECK((*group)->lost_peer() == 1);
  REQUIRE(::waitpid(child, nullptr, 0) == child);
}

struct Attempt {
  std::string secret = "s";
  std::uint64_t generation = 3;
};

// Rank 1 dials rank 0 as `attempt` says; then, in order, as it should. The error of the first try,
// and how many rank 0 turned away.
std::pair<Error, std::uint64_t> try_to_join(const Attempt& attempt) {
  auto first = *Listener::open({});
  auto second = *Listener::open({});
  const FormOptions right{
      .addresses = {first->address(), second->address()}, .generation = 3, .secret = "s"};
  Result<std::unique_ptr<Communicator>> accepted = Error{};
  std::thread acceptor([&] { accepted = first->connect(right); });
  FormOptions own = right;
  own.rank = 1;
  own.secret = attempt.secret;
  own.generation = attempt.generation;
  const Error error = second->connect(own).error();
  own = right;
  own.rank = 1;
  CHECK(second->connect(own).ok());
  acceptor.join();
  CHECK(accepted.ok());
  return {error, first->refused()};
}

TEST_CASE(
    "forming: a wrong secret or generation is refused, counted, and does not stop the group") {
  const auto [wrong_secret, refused] = try_to_join({.secret = "t"});
  CHECK(wrong_secret.code == ErrorCode::permission_denied);
  CHECK(refused == 1);
  CHECK(try_to_join({.secret = "longer than the right one"}).first.code ==
        ErrorCode::permission_denied);
  CHECK(try_to_join({.generation = 2}).first.code == ErrorCode::stale);
}

TEST_CASE(
    "forming: who listens at a rank's address learns no secret and cannot pass for the rank") {
  const std::string secret = "a secret of this generation";
  auto stranger = *listen_local();
  auto second = *Listener::open({});
  const FormOptions form{.rank = 1,
                         .addresses = {stranger.address, second->address()},
                         .generation = 3,
                         .secret = secret};
  Result<std::unique_ptr<Communicator>> joined = Error{};
  std::thread dialer([&] { joined = second->connect(form); });
  FileDescriptor socket;
  while (!socket) socket = accept_waiting(stranger.socket);
  // Accepted sockets do not block; this one is waited for.
  REQUIRE(::fcntl(socket.get(), F_SETFL, 0) == 0);
  Greeting heard;
  REQUIRE(::recv(socket.get(), &heard, sizeof heard, MSG_WAITALL) == sizeof heard);
  const std::string_view bytes(reinterpret_cast<const char*>(&heard), sizeof heard);
  CHECK(bytes.find(secret) == std::string_view::npos);
  heard.rank = 0;  // the best it can do: to give back what it was shown
  REQUIRE(::send(socket.get(), &heard, sizeof heard, MSG_NOSIGNAL) == sizeof heard);
  dialer.join();
  CHECK(joined.error().code == ErrorCode::permission_denied);
}

TEST_CASE("forming: noise and silent strangers do not hold up the group") {
  auto first = *Listener::open({});
  auto second = *Listener::open({});
  const FileDescriptor silent = *dial(first->address());
  const FileDescriptor noisy = *dial(first->address());
  const std::string noise(sizeof(Greeting), 'x');
  REQUIRE(::send(noisy.get(), noise.data(), noise.size(), MSG_NOSIGNAL) ==
          static_cast<ssize_t>(noise.size()));
  FormOptions form{
      .addresses = {first->address(), second->address()}, .generation = 1, .secret = "s"};
  bool joined = false;
  std::thread other([&, form]() mutable {
    form.rank = 1;
    joined = second->connect(form).ok();
  });
  CHECK(first->connect(form).ok());
  other.join();
  CHECK(joined);
  CHECK(first->refused() == 1);
}

TEST_CASE("forming: cancel, a dead peer and the deadline each end it with their error") {
  auto first = *Listener::open({});
  auto second = *Listener::open({});
  const std::string address_of_dead = second->address();
  FormOptions form{
      .addresses = {first->address(), address_of_dead}, .generation = 1, .secret = "s"};
  form.deadline = std::chrono::milliseconds(20);
  CHECK(first->connect(form).error().code == ErrorCode::deadline_exceeded);
  form.deadline = std::chrono::seconds(30);
  std::thread other([&] { first->cancel(); });
  CHECK(first->connect(form).error().code == ErrorCode::aborted);
  other.join();
  first.reset();
  form.rank = 1;
  CHECK(second->connect(form).error().code == ErrorCode::unavailable);
  CHECK(second->lost_peer() == 0);
}

TEST_CASE("forming: addresses that are none and groups that cannot be are refused") {
  auto listener = *Listener::open({});
  FormOptions form{.rank = 1, .addresses = {"nonsense", listener->address()}};
  CHECK(listener->connect(form).error().code == ErrorCode::invalid_argument);
  form.rank = 2;
  CHECK(listener->connect(form).error().code == ErrorCode::invalid_argument);
  form = {.addresses = {listener->address()}, .secret = std::string(kSecretBytesMax + 1, 's')};
  CHECK(listener->connect(form).error().code == ErrorCode::invalid_argument);
}

}  // namespace
}  // namespace tutti::kernels
