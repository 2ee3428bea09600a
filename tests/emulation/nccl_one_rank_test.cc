// One rank with a communicator of the library's own: what needs no second GPU. On the emulation
// and, in ops/gpu/check, with the real NCCL: it forms without blocking, moves memory of the device
// in groups, is finalized and destroyed, or aborted.
#include <nccl.h>

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <memory>
#include <string>
#include <vector>

#include "kernels/collective/nccl_group.h"
#include "kernels/cuda/device.h"

namespace tutti::kernels {
namespace {

// Sockets of a group of one: it hears what it says.
class Alone final : public Communicator {
 public:
  std::uint32_t rank() const override { return 0; }
  std::uint32_t size() const override { return 1; }
  Result<> exchange(std::span<const Transfer> transfers) override {
    if (auto stands = look(); !stands) return stands;
    std::vector<std::span<std::byte>> sent;
    for (const Transfer& transfer : transfers) {
      if (transfer.direction == Transfer::Direction::send) sent.push_back(transfer.bytes);
    }
    auto next = sent.begin();
    for (const Transfer& transfer : transfers) {
      if (transfer.direction == Transfer::Direction::receive)
        std::ranges::copy(*next++, transfer.bytes.begin());
    }
    ++operations_;
    return {};
  }
  Result<> look() override {
    return reason_.empty() ? Result<>() : Error{ErrorCode::aborted, reason_};
  }
  void abort(std::string_view reason) noexcept override {
    if (reason_.empty()) reason_ = reason;
  }
  bool aborted() const noexcept override { return !reason_.empty(); }
  std::int32_t lost_peer() const noexcept override { return -1; }
  std::uint64_t operations() const noexcept override { return operations_; }

 private:
  std::string reason_;
  std::uint64_t operations_ = 0;
};

constexpr std::size_t kBytes = std::size_t{3} << 20;

struct OnDevice {
  explicit OnDevice(cuda::CudaDevice& on) : device(on) {
    for (void*& one : memory) one = *device.allocate(kBytes);
  }
  ~OnDevice() {
    for (void* const one : memory) device.release(one);
  }
  std::span<std::byte> part(std::size_t which, std::size_t first, std::size_t count) const {
    return {static_cast<std::byte*>(memory.at(which)) + first, count};
  }

  cuda::CudaDevice& device;
  std::array<void*, 2> memory{};
};

std::unique_ptr<cuda::CudaDevice> open_device() {
  auto opened = cuda::CudaDevice::open({});
  REQUIRE(opened);
  return *std::move(opened);
}

std::unique_ptr<Communicator> group_of_one(cuda::CudaDevice& device) {
  const auto id = device.link_id();
  REQUIRE(id);
  auto group = device.link(std::make_unique<Alone>(), *id);
  REQUIRE(group);
  return *std::move(group);
}

// The first memory to the second, in two pieces of one group.
Result<> send_over(Communicator& group, const OnDevice& memory) {
  using Direction = Transfer::Direction;
  constexpr std::size_t kFirst = 1 << 20;
  const Transfer transfers[] = {
      {Direction::send, 0, memory.part(0, 0, kFirst)},
      {Direction::send, 0, memory.part(0, kFirst, kBytes - kFirst)},
      {Direction::receive, 0, memory.part(1, 0, kFirst)},
      {Direction::receive, 0, memory.part(1, kFirst, kBytes - kFirst)},
  };
  return group.exchange(transfers);
}

}  // namespace

TEST_CASE("nccl of one rank: its communicator forms, moves memory in groups, and is destroyed") {
  const auto device = open_device();
  const OnDevice memory(*device);
  std::vector<std::uint8_t> sent(kBytes);
  std::vector<std::uint8_t> got(kBytes);
#ifdef TUTTI_CUDA_EMULATION
  const auto before = emulation::nccl_ends();
#endif
  auto group = group_of_one(*device);
  for (const unsigned turn : {1U, 2U}) {
    for (std::size_t i = 0; i < kBytes; ++i)
      sent[i] = static_cast<std::uint8_t>(turn * i + i / 251);
    // Computed on the stream that the transfers wait for.
    REQUIRE(device->upload(memory.memory[0], sent.data(), kBytes));
    const auto moved = send_over(*group, memory);
    INFO((moved ? "" : moved.error().message));
    REQUIRE(moved);
    REQUIRE(device->download(got.data(), memory.memory[1], kBytes));
    CHECK(got == sent);
  }
  group.reset();
#ifdef TUTTI_CUDA_EMULATION
  CHECK(emulation::nccl_ends().destroyed == before.destroyed + 1);
  CHECK(emulation::nccl_ends().aborted == before.aborted);
#endif
}

TEST_CASE(
    "nccl of one rank: a group that was aborted ends by the library's abort, and another forms") {
  const auto device = open_device();
  const OnDevice memory(*device);
#ifdef TUTTI_CUDA_EMULATION
  const auto before = emulation::nccl_ends();
#endif
  auto group = group_of_one(*device);
  REQUIRE(send_over(*group, memory));
  group->abort("the generation is over");
  const auto refused = send_over(*group, memory);
  REQUIRE_FALSE(refused);
  CHECK(refused.error() == Error{ErrorCode::aborted, "the generation is over"});
  group.reset();
#ifdef TUTTI_CUDA_EMULATION
  CHECK(emulation::nccl_ends().aborted == before.aborted + 1);
#endif
  CHECK(send_over(*group_of_one(*device), memory));
}

#ifdef TUTTI_CUDA_EMULATION
// What lies where cannot be asked then, and memory of the device is none for the sockets.
TEST_CASE("nccl of one rank: a device that has failed is said to, and its group is broken") {
  {
    const auto device = open_device();
    const OnDevice memory(*device);
    auto group = group_of_one(*device);
    REQUIRE(send_over(*group, memory));
    auto stream = cuda::make_stream();
    REQUIRE(stream);
    emulation::enqueue(stream->get(), [] { return std::string("a test ended the device here"); });
    static_cast<void>(cudaStreamSynchronize(stream->get()));
    const auto refused = send_over(*group, memory);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == ErrorCode::unavailable);
    CHECK(refused.error().message.find("a test ended the device here") != std::string::npos);
    CHECK_FALSE(group->look());
  }
  emulation::clear_fault();
}
#endif

}  // namespace tutti::kernels
