// What the emulation is for: a kernel with one fault does not pass, a right one always does.
#include <catch2/catch.hpp>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "kernels/cuda/runtime.h"
#include "tests/emulation/kernels_with_faults.h"

namespace tutti::test {
namespace {

using emulation::Order;

constexpr unsigned kBlocks = 3;
constexpr unsigned kTiles = 5;
constexpr unsigned kWidth = 128;

struct Ran {
  std::string fault;
  std::vector<float> values;
};

enum class Kernel { mirror, pipelined_sum };

Ran run(Kernel kernel, Fault fault, const Order& order) {
  emulation::set_order(order);
  const unsigned count = (kernel == Kernel::mirror ? kBlocks : kTiles) * kWidth;
  auto memory = kernels::cuda::make_device_memory(2 * count * sizeof(float));
  REQUIRE(memory);
  auto* const from = static_cast<float*>(memory->get());
  float* const to = from + count;
  for (unsigned i = 0; i < count; ++i) from[i] = static_cast<float>(i + 1);
  auto stream = kernels::cuda::make_stream();
  REQUIRE(stream);
  if (kernel == Kernel::mirror) launch_mirror(stream->get(), fault, from, to, kBlocks);
  if (kernel == Kernel::pipelined_sum) launch_pipelined_sum(stream->get(), fault, from, to, kTiles);
  const bool well = cudaStreamSynchronize(stream->get()) == cudaSuccess;
  Ran ran{emulation::device_fault(), {}};
  CHECK(well == ran.fault.empty());
  const unsigned written = kernel == Kernel::mirror ? count : kWidth;
  ran.values.assign(to, to + written);
  emulation::clear_fault();
  return ran;
}

std::vector<float> expected(Kernel kernel) {
  std::vector<float> values(kernel == Kernel::mirror ? kBlocks * kWidth : kWidth, 0.0F);
  if (kernel == Kernel::mirror) {
    for (unsigned i = 0; i < values.size(); ++i) {
      values[i] = static_cast<float>(i / kWidth * kWidth + kWidth - i % kWidth);
    }
    return values;
  }
  for (unsigned i = 0; i < kWidth; ++i) {
    for (unsigned t = 0; t < kTiles; ++t) values[i] += static_cast<float>(t * kWidth + kWidth - i);
  }
  return values;
}

std::vector<Order> orders() {
  std::vector<Order> all;
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    all.push_back({Order::Kind::random, seed});
    all.push_back({Order::Kind::warp_priority, seed});
  }
  return all;
}

// In how many of the orders the fault shows, by an error or by a wrong number.
int caught(Kernel kernel, Fault fault) {
  int count = 0;
  for (const Order& order : orders()) {
    const Ran ran = run(kernel, fault, order);
    count += !ran.fault.empty() || ran.values != expected(kernel) ? 1 : 0;
  }
  return count;
}

}  // namespace

TEST_CASE("emulation: right kernels give the right numbers in every order") {
  CHECK(caught(Kernel::mirror, Fault::none) == 0);
  CHECK(caught(Kernel::pipelined_sum, Fault::none) == 0);
}

TEST_CASE("emulation: a kernel with a barrier removed is caught") {
  CHECK(caught(Kernel::mirror, Fault::missing_barrier) == 6);
  CHECK(caught(Kernel::pipelined_sum, Fault::missing_barrier) > 0);
}

TEST_CASE("emulation: a wait for one copy too few is caught") {
  CHECK(caught(Kernel::pipelined_sum, Fault::missing_wait) > 0);
}

TEST_CASE("emulation: a kernel with a wrong index is caught") {
  CHECK(caught(Kernel::mirror, Fault::wrong_index) == 6);
}

TEST_CASE("emulation: a kernel that overruns its shared memory is caught") {
  const Ran ran = run(Kernel::mirror, Fault::overrun, {});
  CHECK(ran.fault.find("shared memory was written behind its end") != std::string::npos);
}

TEST_CASE("emulation: a barrier that not all threads reach is a deadlock, and is reported as one") {
  for (const Order& order : orders()) {
    const Ran ran = run(Kernel::mirror, Fault::divergent_barrier, order);
    CHECK(ran.fault.find("divergent barrier: 100 of 128 threads") != std::string::npos);
  }
}

TEST_CASE("emulation: a write beyond device memory is caught, and the device stays failed") {
  auto memory = kernels::cuda::make_device_memory(100 * sizeof(float));
  REQUIRE(memory);
  auto stream = kernels::cuda::make_stream();
  REQUIRE(stream);
  launch_write_beyond(stream->get(), static_cast<float*>(memory->get()), 100);
  const auto failed = kernels::cuda::check(cudaStreamSynchronize(stream->get()), "the stream");
  REQUIRE_FALSE(failed);
  CHECK(failed.error().code == ErrorCode::unavailable);
  CHECK(failed.error().message.find("beyond its ends") != std::string::npos);
  CHECK_FALSE(kernels::cuda::make_device_memory(16));
  emulation::clear_fault();
  CHECK(kernels::cuda::make_device_memory(16));
}

TEST_CASE("emulation: work of two streams overlaps, and an event orders it") {
  auto first = kernels::cuda::make_stream();
  auto second = kernels::cuda::make_stream();
  auto event = kernels::cuda::make_event();
  REQUIRE((first && second && event));
  std::atomic<bool> go{false};
  std::atomic<int> turn{0};
  int first_at = 0;
  int second_at = 0;
  // The first stream waits for what the second one does, so both must run at once.
  emulation::enqueue(first->get(), [&]() -> std::string {
    while (!go) std::this_thread::yield();
    first_at = ++turn;
    return {};
  });
  REQUIRE(cudaEventRecord(event->get(), first->get()) == cudaSuccess);
  emulation::enqueue(second->get(), [&]() -> std::string {
    go = true;
    return {};
  });
  REQUIRE(cudaStreamWaitEvent(second->get(), event->get()) == cudaSuccess);
  emulation::enqueue(second->get(), [&]() -> std::string {
    second_at = ++turn;
    return {};
  });
  REQUIRE(cudaStreamSynchronize(second->get()) == cudaSuccess);
  CHECK(first_at == 1);
  CHECK(second_at == 2);
}

TEST_CASE("emulation: memory is limited, and an error says how much there is") {
  auto memory = kernels::cuda::make_device_memory(std::size_t{1} << 40);
  REQUIRE_FALSE(memory);
  CHECK(memory.error().code == ErrorCode::exhausted);
  CHECK(memory.error().message.find("of 4096 MB are free") != std::string::npos);
}

}  // namespace tutti::test
