// What only a group with a library below it can do: wait for a peer's stream, and be freed from
// that.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <latch>

#include "kernels/collective/nccl_group.h"
#include "tests/emulation/nccl_groups.h"
#include "tests/support/cuda_emulation/device_memory.h"
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
    const emulation::MemoryUse looks;
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
    CHECK(cudaPeekAtLastError() == cudaSuccess);  // ops take it for a launch's
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

namespace {

// Two ranks that exchange once, over a library that something is wrong with ("": nothing).
std::vector<Result<>> exchange_with(const std::string& wrong, const NcclOptions& common) {
  std::vector<Result<>> results(2);
  auto id = make_nccl_id();
  REQUIRE(id);
  if (!wrong.empty()) ::setenv("TUTTI_EMULATION_NCCL", wrong.c_str(), 1);
  test::set_wrapping(test::Wrapping::none);
  test::run_ranks({.size = 2}, [&](std::unique_ptr<Communicator> plain) {
    const std::uint32_t rank = plain->rank();
    REQUIRE(cudaSetDevice(static_cast<int>(rank) + 1) == cudaSuccess);
    auto compute = cuda::make_stream();
    auto memory = cuda::make_device_memory(64);
    if (!compute || !memory) return;
    NcclOptions options = common;
    options.id = *id;
    options.compute = compute->get();
    auto group = NcclGroup::over(std::move(plain), options);
    if (!group) return;
    const std::span<std::byte> bytes(static_cast<std::byte*>(memory->get()), 64);
    const Transfer transfer{rank == 0 ? Transfer::Direction::receive : Transfer::Direction::send,
                            1 - rank, bytes};
    results[rank] = (*group)->exchange(std::span(&transfer, 1));
  });
  test::set_wrapping(test::Wrapping::over_nccl);
  ::unsetenv("TUTTI_EMULATION_NCCL");
  return results;
}

constexpr Duration kSoon = std::chrono::milliseconds(50);

bool is_error(const Result<>& result, ErrorCode code) {
  return !result && result.error().code == code;
}

}  // namespace

TEST_CASE("nccl: a group that stands to its end is destroyed, one whose end hangs is aborted") {
  const auto before = emulation::nccl_ends();
  const auto well = exchange_with("", {});
  CHECK((well[0] && well[1]));
  CHECK(emulation::nccl_ends().destroyed == before.destroyed + 2);
  CHECK(emulation::nccl_ends().aborted == before.aborted);
  const auto hung = exchange_with("finalize_hangs", {.finalize_deadline = kSoon});
  CHECK((hung[0] && hung[1]));
  CHECK(emulation::nccl_ends().destroyed == before.destroyed + 2);
  CHECK(emulation::nccl_ends().aborted == before.aborted + 2);
  // By threads whose device is the group's.
  CHECK(emulation::nccl_ends().elsewhere == before.elsewhere);
}

TEST_CASE("nccl: a group that does not form in its time is given up") {
  const auto results = exchange_with("forming_hangs", {.form_deadline = kSoon});
  CHECK((is_error(results[0], ErrorCode::deadline_exceeded) ||
         is_error(results[1], ErrorCode::deadline_exceeded)));
  CHECK((!results[0] && !results[1]));
}

TEST_CASE("nccl: an error that the library finds later breaks the group") {
  const auto before = emulation::nccl_ends();
  const auto results = exchange_with("asynchronous_error", {});
  CHECK((is_error(results[0], ErrorCode::unavailable) &&
         is_error(results[1], ErrorCode::unavailable)));
  CHECK(emulation::nccl_ends().aborted == before.aborted + 2);
}

// Run by the case below, each in a process of its own.
TEST_CASE("nccl alone: the abort hangs", "[.]") {
  // Forming hangs, and then so does the abort that follows.
  static_cast<void>(exchange_with("forming_hangs,abort_hangs",
                                  {.form_deadline = kSoon, .abort_deadline = kSoon}));
}
TEST_CASE("nccl alone: the call that finalizes blocks", "[.]") {
  static_cast<void>(
      exchange_with("finalize_blocks", {.finalize_deadline = kSoon, .abort_deadline = kSoon}));
}

// Two transfers have begun, and rank 1's waits for what it computes, which does not end.
TEST_CASE("nccl alone: the computing thread waits for the device", "[.]") {
  auto id = make_nccl_id();
  REQUIRE(id);
  test::set_wrapping(test::Wrapping::none);
  test::run_ranks({.size = 2}, [&](std::unique_ptr<Communicator> plain) {
    const std::uint32_t rank = plain->rank();
    auto compute = cuda::make_stream();
    auto transfers = cuda::make_stream();
    auto memory = cuda::make_device_memory(64);
    REQUIRE((compute && transfers && memory));
    auto group = NcclGroup::over(std::move(plain), {.id = *id,
                                                    .compute = compute->get(),
                                                    .transfers = transfers->get(),
                                                    .seen_deadline = kSoon});
    REQUIRE(group);
    if (rank == 1) {
      emulation::enqueue(compute->get(), []() -> std::string {
        for (;;) ::pause();
      });
    }
    const std::span<std::byte> bytes(static_cast<std::byte*>(memory->get()), 64);
    const Transfer transfer{rank == 0 ? Transfer::Direction::receive : Transfer::Direction::send,
                            1 - rank, bytes};
    REQUIRE((*group)->begin(std::span(&transfer, 1)));
    std::thread([&group] { (*group)->abort("the generation is over"); }).join();
    static_cast<void>(cudaStreamSynchronize(transfers->get()));
  });
}

TEST_CASE("nccl: a rank whose group cannot be ended ends as the infrastructure's") {
  const std::string own = std::filesystem::read_symlink("/proc/self/exe").string();
  for (const std::string name : {"the abort hangs", "the call that finalizes blocks",
                                 "the computing thread waits for the device"}) {
    INFO(name);
    const std::string command = "timeout 20 '" + own + "' 'nccl alone: " + name + "'";
    const int status = std::system((command + " >/dev/null 2>&1").c_str());
    REQUIRE(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 3);
  }
}

TEST_CASE("nccl: ranks with another version of the library than rank 0's are refused") {
  test::run_ranks({.size = 1}, [](std::unique_ptr<Communicator> plain) {
    auto id = make_nccl_id();
    REQUIRE(id);
    const std::string other = id->substr(0, id->find('-')) + "-2.26.1";
    const auto group = NcclGroup::over(std::move(plain), {.id = other});
    REQUIRE_FALSE(group);
    CHECK(
        group.error() ==
        Error{ErrorCode::unsupported,
              "rank 0 has NCCL 2.26.1, this rank 0.0.0: a group needs one version, so install one "
              "on the machines of its workers (`tutti node` says theirs)"});
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
