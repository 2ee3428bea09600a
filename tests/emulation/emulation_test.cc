// What the emulation is for: a kernel with one fault does not pass, a right one always does.
#include <catch2/catch.hpp>

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <bit>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <latch>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/cuda/elementary.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/scratch.h"
#include "kernels/ops/embedding.h"
#include "kernels/ops/math.h"
#include "kernels/tensor/buffer.h"
#include "kernels/tensor/open_device.h"
#include "protocol/base/rng.h"
#include "tests/emulation/kernels_with_faults.h"
#include "tests/support/cuda_emulation/device_memory.h"
#include "tests/support/poison.h"

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
  const emulation::MemoryUse looks;
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

// Whether AddressSanitizer, which ends a process at such an access, says of what a process of its
// own does that it touched memory that nobody may.
bool is_reported(const std::function<void()>& work) {
  int said[2] = {};
  REQUIRE(::pipe(said) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    std::signal(SIGABRT, SIG_DFL);
    ::dup2(said[1], STDERR_FILENO);
    report_to_stderr();
    work();
    std::_Exit(0);
  }
  ::close(said[1]);
  std::string report;
  char some[4096];
  for (ssize_t got = 0; (got = ::read(said[0], some, sizeof(some))) > 0;)
    report.append(some, static_cast<std::size_t>(got));
  ::close(said[0]);
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return status != 0 && report.find("use-after-poison") != std::string::npos;
}

}  // namespace

TEST_CASE("emulation: exp and log of kernels have the bits of the CPU's") {
  std::vector<double> values{0.0,   -0.0,   1.0,      -1.0,      0x1p-1074, 0x1p-1022,
                             709.8, -745.3, INFINITY, -INFINITY, NAN,       1.4142135623730951};
  Rng rng(5);
  for (int i = 0; i < 20'000; ++i) values.push_back(std::bit_cast<double>(rng.next()));
  for (int i = 0; i < 20'000; ++i) values.push_back(1400 * rng.uniform() - 700);
  const auto same = [](double a, double b) {
    return std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b) ||
           (std::isnan(a) && std::isnan(b));
  };
  std::vector<double> others;
  for (const double x : values) {
    const bool both = same(kernels::cuda::exp64(x), kernels::exp(x)) &&
                      same(kernels::cuda::log64(x), kernels::log(x));
    if (!both) others.push_back(x);
  }
  CHECK(others.empty());
}

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

TEST_CASE(
    "emulation: a kernel that writes behind, before or far from its shared memory is caught") {
  for (const Fault fault : {Fault::overrun, Fault::underrun, Fault::far_away}) {
    if (kWatched) {
      CHECK(is_reported([&] { run(Kernel::mirror, fault, {}); }));
      continue;
    }
    const Ran ran = run(Kernel::mirror, fault, {});
    CHECK(ran.fault.find("shared memory was written outside of what there is") !=
          std::string::npos);
    CHECK(run(Kernel::mirror, Fault::none, {}).fault.empty());
  }
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
  const auto launch = [&](cudaStream_t stream) {
    launch_write_beyond(stream, static_cast<float*>(memory->get()), 100);
    return cudaStreamSynchronize(stream);
  };
  if (kWatched) {
    CHECK(is_reported([&] { static_cast<void>(launch(kernels::cuda::make_stream()->get())); }));
    return;
  }
  auto stream = kernels::cuda::make_stream();
  REQUIRE(stream);
  const auto failed = kernels::cuda::check(launch(stream->get()), "the stream");
  REQUIRE_FALSE(failed);
  CHECK(failed.error().code == ErrorCode::unavailable);
  CHECK(failed.error().message.find("beyond its ends") != std::string::npos);
  CHECK_FALSE(kernels::cuda::make_device_memory(16));
  emulation::clear_fault();
  CHECK(kernels::cuda::make_device_memory(16));
}

namespace {

// What the device says of work that `launch` enqueues; the device is well afterwards.
std::string fault_of(const std::function<void(cudaStream_t)>& launch) {
  auto stream = kernels::cuda::make_stream();
  REQUIRE(stream);
  launch(stream->get());
  static_cast<void>(cudaStreamSynchronize(stream->get()));
  const std::string fault = emulation::device_fault();
  emulation::clear_fault();
  return fault;
}

// What a launch or a call leaves for the next look at errors; that is not sticky.
cudaError_t error_of(const std::function<void(cudaStream_t)>& call) {
  auto stream = kernels::cuda::make_stream();
  REQUIRE(stream);
  call(stream->get());
  const cudaError_t error = cudaGetLastError();
  CHECK(cudaGetLastError() == cudaSuccess);
  return error;
}

}  // namespace

TEST_CASE("emulation: a grid that no device takes is refused") {
  const auto launch = [](const dim3& blocks, const dim3& threads) {
    return error_of([&](cudaStream_t stream) { launch_nothing(stream, {blocks, threads}); });
  };
  CHECK(launch({70'000, 1, 1}, 1) == cudaSuccess);
  CHECK(launch({1, 65'536}, 32) == cudaErrorInvalidConfiguration);
  CHECK(launch({1, 1, 65'536}, 32) == cudaErrorInvalidConfiguration);
  CHECK(launch({0, 1, 1}, 32) == cudaErrorInvalidConfiguration);
  CHECK(launch(1, 1025) == cudaErrorInvalidConfiguration);
  CHECK(launch(1, {1, 1, 65}) == cudaErrorInvalidConfiguration);
}

TEST_CASE("emulation: shared memory is limited, and beyond 48 KiB asked for") {
  const auto launch = [](std::size_t bytes, Attribute attribute) {
    return error_of([&](cudaStream_t stream) {
      launch_nothing(stream, {1, 32, bytes}, attribute);
    });
  };
  CHECK(launch(48 << 10, Attribute::not_asked) == cudaSuccess);
  CHECK(launch(49 << 10, Attribute::not_asked) == cudaErrorInvalidValue);
  CHECK(launch(227 << 10, Attribute::asked) == cudaSuccess);
  CHECK(launch(228 << 10, Attribute::asked) == cudaErrorInvalidValue);
  // What an op looks at when it ends.
  CHECK(std::exchange(kernels::cuda::launch_refusal, {}).shared_bytes == 228 << 10);
  // 32 KiB of static memory beside it.
  const auto fault = [](std::size_t bytes) {
    return fault_of([&](cudaStream_t stream) { launch_with_static(stream, bytes); });
  };
  CHECK(fault(16 << 10) == "");
  CHECK(fault(17 << 10).find("more than a block has") != std::string::npos);
  CHECK(fault(33 << 10) == "");  // more than 48 KiB together: it is asked for
  CHECK(fault(195 << 10) == "");
  CHECK(fault(196 << 10).find("more than a block has") != std::string::npos);
}

TEST_CASE("emulation: heads too wide for a GPU's shared memory are refused in one line") {
  constexpr kernels::Index kTokens = 3;
  ::setenv("TUTTI_EMULATION_SHARED", "101376", 1);  // 99 KiB, as some have
  {
    auto opened = kernels::cuda::CudaDevice::open({});
    REQUIRE(opened);
    kernels::Device& device = **opened;
    const auto attend = [&](kernels::Index width) {
      const kernels::FloatBuffer rows(4 * kTokens * width, &device);
      const auto matrix = [&](kernels::Index i) {
        return kernels::Matrix(rows.data() + i * kTokens * width, kTokens, width);
      };
      const std::vector<std::int32_t> offsets{0, kTokens};
      const auto done = device.enqueue(kernels::AttentionForward{.shape = {1, 1, width, 1.0F},
                                                                 .q = matrix(0),
                                                                 .k = matrix(1),
                                                                 .v = matrix(2),
                                                                 .sample_offsets = offsets,
                                                                 .out = matrix(3)});
      REQUIRE(device.synchronize());
      return done;
    };
    REQUIRE(attend(128));
    const auto refused = attend(256);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == ErrorCode::unsupported);
    INFO(refused.error().message);
    CHECK(refused.error().message.find("KiB of shared memory a block, this GPU gives 99") !=
          std::string::npos);
    // The next op is not held to it.
    const auto next = attend(128);
    CHECK((next ? "" : next.error().message) == "");
  }
  ::unsetenv("TUTTI_EMULATION_SHARED");
}

TEST_CASE("emulation: an address that a load cannot take is caught") {
  auto memory = kernels::cuda::make_device_memory(1024);
  REQUIRE(memory);
  {
    const emulation::MemoryUse looks;
    std::memset(memory->get(), 0, 1024);
  }
  const auto fault = [&](Load load, unsigned skipped) {
    return fault_of([&](cudaStream_t stream) {
      launch_load(stream, load, static_cast<const float*>(memory->get()), skipped);
    });
  };
  for (const Load load : {Load::copy_async_16, Load::copy_async_4, Load::matrices, Load::vector}) {
    CHECK(fault(load, 16) == "");
    CHECK(fault(load, 2).find("not a multiple of") != std::string::npos);
  }
  for (const Load load : {Load::copy_async_16, Load::matrices, Load::vector})
    CHECK(fault(load, 8).find("not a multiple of 16") != std::string::npos);
  CHECK(fault(Load::copy_async_4, 8) == "");
}

TEST_CASE("emulation: a kernel that is handed memory of the host is caught") {
  std::vector<float> plain(64, 1.0F);
  auto pinned = kernels::cuda::make_pinned_memory(512);
  auto memory = kernels::cuda::make_device_memory(512);
  REQUIRE((pinned && memory));
  const auto fault = [](void* from) {
    return fault_of([&](cudaStream_t stream) {
      launch_load(stream, Load::vector, static_cast<const float*>(from), 0);
    });
  };
  CHECK(fault(memory->get()) == "");
  CHECK(fault(plain.data()).find("none of the device's memory") != std::string::npos);
  // What the host has pinned is seen by the device, at the same address.
  std::memset(pinned->get(), 0, 512);
  CHECK(fault(pinned->get()) == "");
  // Memory that was given back is no memory.
  void* const gone = memory->get();
  *memory = kernels::cuda::DeviceMemory();
  CHECK(fault(gone).find("none of the device's memory") != std::string::npos);
}

TEST_CASE("emulation: a host that reads or writes memory of the device ends there") {
  auto memory = kernels::cuda::make_device_memory(64);
  REQUIRE(memory);
  auto* const number = static_cast<volatile float*>(memory->get());
  const auto ends = [](const std::function<void()>& touch) {
    const pid_t child = ::fork();
    if (child == 0) {
      std::signal(SIGSEGV, SIG_DFL);
      touch();
      std::_Exit(0);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
  };
  CHECK(ends([&] { static_cast<void>(*number); }));
  CHECK(ends([&] { *number = 1.0F; }));
  const emulation::MemoryUse looks;
  CHECK_FALSE(ends([&] { *number = 1.0F; }));
}

TEST_CASE("emulation: a copy whose ends do not lie where its kind says is refused") {
  auto device = kernels::cuda::make_device_memory(64);
  auto pinned = kernels::cuda::make_pinned_memory(64);
  REQUIRE((device && pinned));
  std::vector<std::byte> plain(64);
  const auto copy = [](void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
    return error_of([&](cudaStream_t stream) {
      static_cast<void>(cudaMemcpyAsync(to, from, bytes, kind, stream));
      static_cast<void>(cudaStreamSynchronize(stream));
    });
  };
  void* const d = device->get();
  CHECK(copy(d, plain.data(), 64, cudaMemcpyHostToDevice) == cudaSuccess);
  CHECK(copy(d, pinned->get(), 64, cudaMemcpyHostToDevice) == cudaSuccess);
  CHECK(copy(plain.data(), d, 64, cudaMemcpyDeviceToHost) == cudaSuccess);
  CHECK(copy(d, plain.data(), 64, cudaMemcpyDeviceToDevice) == cudaErrorInvalidValue);
  CHECK(copy(plain.data(), d, 64, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
  CHECK(copy(d, pinned->get(), 64, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
  CHECK(copy(d, plain.data(), 65, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
  CHECK(error_of([&](cudaStream_t stream) {
          static_cast<void>(cudaMemsetAsync(plain.data(), 0, 64, stream));
        }) == cudaErrorInvalidValue);
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

namespace {

enum class HostWaits { kept, left_out };

// Where the host's waits are left out, the stream does nothing until `work` has returned.
void run_with(HostWaits waits, cudaStream_t stream, const std::function<void()>& work) {
  std::latch go(1);
  if (waits == HostWaits::left_out) {
    ::setenv("TUTTI_EMULATION_HOST_WAITS", "0", 1);
    emulation::enqueue(stream, [&]() -> std::string {
      go.wait();
      return {};
    });
  }
  work();
  ::unsetenv("TUTTI_EMULATION_HOST_WAITS");
  go.count_down();
  REQUIRE(cudaStreamSynchronize(stream) == cudaSuccess);
}

// The first byte of each of some pieces that fill a slot of the ring, one more than it has.
std::vector<int> pieces_sent(HostWaits waits) {
  using kernels::cuda::UploadRing;
  constexpr std::size_t kPieces = UploadRing::kSlots + 1;
  auto ring = UploadRing::make();
  auto stream = kernels::cuda::make_stream();
  auto memory = kernels::cuda::make_device_memory(kPieces * UploadRing::kSlotBytes);
  REQUIRE((ring && stream && memory));
  auto* const bytes = static_cast<unsigned char*>(memory->get());
  run_with(waits, stream->get(), [&] {
    for (std::size_t i = 0; i < kPieces; ++i) {
      const std::vector<unsigned char> piece(UploadRing::kSlotBytes,
                                             static_cast<unsigned char>(i + 1));
      REQUIRE(ring->send(stream->get(), bytes + i * piece.size(), piece.data(), piece.size()));
    }
  });
  const emulation::MemoryUse looks;
  std::vector<int> out;
  for (std::size_t i = 0; i < kPieces; ++i) out.push_back(bytes[i * UploadRing::kSlotBytes]);
  return out;
}

// What two replays of one captured step give, of a token each.
std::vector<float> tokens_replayed(HostWaits waits) {
  const auto device = *kernels::cuda::CudaDevice::open({});
  const std::vector<float> rows{10.0F, 20.0F};
  const kernels::FloatBuffer table(2, device.get());
  const kernels::FloatBuffer out(1, device.get());
  const kernels::FloatBuffer kept(2, device.get());
  REQUIRE(device->upload(table.data(), rows.data(), 2 * sizeof(float)));
  const auto run = [&](std::int32_t token) {
    const std::vector<std::int32_t> tokens{token};
    REQUIRE(device->run_repeated(1, [&] {
      return device->enqueue(kernels::EmbeddingForward{
          .table = table.matrix(2, 1), .tokens = tokens, .output = out.matrix(1, 1)});
    }));
  };
  run(0);
  run(0);  // captured
  run_with(waits, device->stream(), [&] {
    for (std::int32_t token = 0; token < 2; ++token) {
      run(token);
      REQUIRE(device->copy(kept.data() + token, out.data(), sizeof(float)));
    }
  });
  CHECK(device->graph_counts().replayed == 2);
  std::vector<float> got(2);
  REQUIRE(device->download(got.data(), kept.data(), 2 * sizeof(float)));
  return got;
}

}  // namespace

TEST_CASE("emulation: a wait of the host that is left out shows, in the ring and in a replay") {
  CHECK(pieces_sent(HostWaits::kept) == std::vector<int>{1, 2, 3, 4, 5});
  CHECK(pieces_sent(HostWaits::left_out) == std::vector<int>{5, 2, 3, 4, 5});
  CHECK(tokens_replayed(HostWaits::kept) == std::vector<float>{10.0F, 20.0F});
  CHECK(tokens_replayed(HostWaits::left_out) == std::vector<float>{20.0F, 20.0F});
}

TEST_CASE("emulation: memory is limited, and an error says how much there is") {
  auto memory = kernels::cuda::make_device_memory(std::size_t{1} << 40);
  REQUIRE_FALSE(memory);
  CHECK(memory.error().code == ErrorCode::exhausted);
  CHECK(memory.error().message.find("of 4096 MB are free") != std::string::npos);
}

TEST_CASE("emulation: what fails on every try is nobody's to try again, and says its code") {
  const auto error = [](const char* variable, std::size_t value) {
    ::setenv(variable, std::to_string(value).c_str(), 1);
    const Error met = kernels::cuda::CudaDevice::open({}).error();
    ::unsetenv(variable);
    return met;
  };
  const auto tells = [](const Error& met, const char* first, const char* name) {
    INFO(met.message);
    return met.message.find(first) == 0 && met.message.find(name) != std::string::npos;
  };
  for (const cudaError_t code : {cudaErrorNoKernelImageForDevice, cudaErrorInvalidDeviceFunction}) {
    const Error met = error("TUTTI_EMULATION_CODE_FAILS", code);
    CHECK(met.code == ErrorCode::unsupported);
    CHECK(tells(met, "this build has no code for this GPU", cudaGetErrorName(code)));
  }
  const Error foreign = error("TUTTI_EMULATION_CODE_FAILS", cudaErrorUnsupportedPtxVersion);
  CHECK(foreign.code == ErrorCode::unsupported);
  CHECK(tells(foreign, "the NVIDIA driver cannot translate", "cudaErrorUnsupportedPtxVersion"));
  const Error mixed = error("TUTTI_EMULATION_COUNT_FAILS", cudaErrorSystemDriverMismatch);
  CHECK(mixed.code == ErrorCode::unsupported);
  CHECK(tells(mixed, "the NVIDIA driver and its libraries", "cudaErrorSystemDriverMismatch"));
  const Error unlinked = error("TUTTI_EMULATION_COUNT_FAILS", cudaErrorSystemNotReady);
  CHECK(unlinked.code == ErrorCode::unsupported);
  CHECK(tells(unlinked, "the GPUs' links are not set up", "cudaErrorSystemNotReady"));
  ::setenv("TUTTI_EMULATION_NAME", "NVIDIA H200 MIG 1g.18gb", 1);
  const auto cut = kernels::list_devices();
  ::unsetenv("TUTTI_EMULATION_NAME");
  REQUIRE_FALSE(cut);
  CHECK(cut.error().code == ErrorCode::unsupported);
  CHECK(cut.error().message.find("NVIDIA H200 MIG 1g.18gb is an instance of a GPU") == 0);
  ::setenv("TUTTI_EMULATION_DRIVER", "13010", 1);
  const auto newer = kernels::list_devices();
  ::unsetenv("TUTTI_EMULATION_DRIVER");
  REQUIRE(newer);
  CHECK(newer->exchange.ends_with(" cuda-13.0 driver-13.1"));
  const Error none = error("TUTTI_EMULATION_DEVICES", 0);
  CHECK(none.code == ErrorCode::unsupported);
  CHECK(tells(none, "no GPU is visible", "CUDA_VISIBLE_DEVICES"));
  // This may be over tomorrow, or on another machine.
  const Error ill = error("TUTTI_EMULATION_COUNT_FAILS", cudaErrorInitializationError);
  CHECK(ill.code == ErrorCode::unavailable);
  CHECK(tells(ill, "the GPU failed: cudaGetDeviceCount", "cudaErrorInitializationError"));
  const Error taken = error("TUTTI_EMULATION_COUNT_FAILS", cudaErrorDevicesUnavailable);
  CHECK(taken.code == ErrorCode::unavailable);
  CHECK(tells(taken, "another process has the GPU for itself", "cudaErrorDevicesUnavailable"));
  // What a call was given is our own mistake.
  for (const cudaError_t code : {cudaErrorInvalidValue, cudaErrorInvalidConfiguration,
                                 cudaErrorInvalidDevicePointer, cudaErrorInvalidMemcpyDirection,
                                 cudaErrorInvalidResourceHandle, cudaErrorLaunchOutOfResources})
    CHECK(kernels::cuda::error_of(code, "a launch").code == ErrorCode::internal);
}

}  // namespace tutti::test
