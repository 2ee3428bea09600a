// What only a group with a library below it can do: wait for a peer's stream, and be freed from
// that.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <latch>

#include "kernels/collective/nccl_group.h"
#include "tests/unit/collective/rank_threads.h"

namespace tutti::kernels {

TEST_CASE(
    "nccl: an abort frees a rank that waits for a peer's device, and the first reason is kept") {
  std::atomic<bool> go{false};
  std::latch waiting(1);
  std::vector<Error> errors(2);
  auto id = make_nccl_id();
  REQUIRE(id);
  // Groups over sockets, wrapped here: each rank has a compute stream of its own.
  test::run_ranks({.size = 2}, [&](std::unique_ptr<Communicator> plain) {
    const std::uint32_t rank = plain->rank();
    auto compute = cuda::make_stream();
    auto memory = cuda::make_device_memory(1024);
    if (!compute || !memory) return;  // errors[rank] then stays empty
    auto group = NcclGroup::over(std::move(plain), {.id = *id, .compute = compute->get()});
    if (!group) return;
    const std::span<std::byte> bytes(static_cast<std::byte*>(memory->get()), 1024);
    const Transfer transfer{rank == 0 ? Transfer::Direction::receive : Transfer::Direction::send,
                            1 - rank, bytes};
    if (rank == 1) {
      // What it sends is not computed yet.
      emulation::enqueue(compute->get(), [&]() -> std::string {
        while (!go) std::this_thread::yield();
        return {};
      });
    }
    std::thread aborter([&] {
      if (rank != 0) return;
      waiting.wait();
      (*group)->abort("the generation is over");
      (*group)->abort("a later reason");
    });
    if (rank == 0) waiting.count_down();
    errors[rank] = (*group)->exchange(std::span(&transfer, 1)).error();
    go = true;
    aborter.join();
  });
  CHECK(errors[0] == Error{ErrorCode::aborted, "the generation is over"});
  CHECK(errors[1].code == ErrorCode::unavailable);  // its peer's group broke
}

namespace {

constexpr std::size_t kWords = 64;

// What rank 1 gets of rank 0, which computes 2 in place of 1 once all has been begun; or only when
// the transfer has ended, which then cannot have waited for it.
enum class Finish { after_compute, before_compute };
std::vector<int> begun_and_computed(Finish finish) {
  std::vector<int> got(kWords);
  auto id = make_nccl_id();
  REQUIRE(id);
  test::run_ranks({.size = 2}, [&](std::unique_ptr<Communicator> plain) {
    const std::uint32_t rank = plain->rank();
    auto compute = cuda::make_stream();
    auto transfers = cuda::make_stream();
    auto memory = cuda::make_device_memory(kWords * sizeof(int));
    REQUIRE((compute && transfers && memory));
    const std::span<int> words(static_cast<int*>(memory->get()), kWords);
    std::fill(words.begin(), words.end(), 1);
    std::latch gate(1);
    if (rank == 0) {
      emulation::enqueue(compute->get(), [&]() -> std::string {
        gate.wait();
        std::fill(words.begin(), words.end(), 2);
        return {};
      });
    }
    auto group = NcclGroup::over(
        std::move(plain), {.id = *id, .compute = compute->get(), .transfers = transfers->get()});
    REQUIRE(group);
    const Transfer transfer{rank == 0 ? Transfer::Direction::send : Transfer::Direction::receive,
                            1 - rank, std::as_writable_bytes(words)};
    // Returns although what it sends is not there yet.
    CHECK((*group)->begin(std::span(&transfer, 1)));
    if (finish == Finish::after_compute) gate.count_down();
    CHECK((*group)->finish());
    if (finish == Finish::before_compute) gate.count_down();
    if (rank == 1) std::copy(words.begin(), words.end(), got.begin());
    CHECK(cudaStreamSynchronize(compute->get()) == cudaSuccess);
  });
  return got;
}

}  // namespace

TEST_CASE("nccl: what was begun waits for what computes it, and a missing wait is caught") {
  CHECK(begun_and_computed(Finish::after_compute) == std::vector<int>(kWords, 2));
  ::setenv("TUTTI_EMULATION_EVENT_WAITS", "0", 1);
  const std::vector<int> early = begun_and_computed(Finish::before_compute);
  ::unsetenv("TUTTI_EMULATION_EVENT_WAITS");
  CHECK(early == std::vector<int>(kWords, 1));
}

TEST_CASE("nccl: ranks with another version of the library than rank 0's are refused") {
  test::run_ranks({.size = 1}, [](std::unique_ptr<Communicator> plain) {
    auto id = make_nccl_id();
    REQUIRE(id);
    const std::string other = id->substr(0, id->find('-')) + "-2.26.1";
    const auto group = NcclGroup::over(std::move(plain), {.id = other});
    REQUIRE_FALSE(group);
    CHECK(group.error() ==
          Error{ErrorCode::unsupported,
                "rank 0 has NCCL 2.26.1, this rank 0.0.0: a group needs one version"});
  });
}

TEST_CASE("nccl: an identifier that is none is refused") {
  test::run_ranks({.size = 1}, [](std::unique_ptr<Communicator> plain) {
    const auto group = NcclGroup::over(std::move(plain), {.id = "12"});
    REQUIRE_FALSE(group);
    CHECK(group.error().code == ErrorCode::invalid_argument);
  });
}

}  // namespace tutti::kernels
