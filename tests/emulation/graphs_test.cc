// Captured steps: what they may be replayed for, and what a capture cannot hold.
#include <catch2/catch.hpp>

#include <stdexcept>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/ops/product.h"
#include "kernels/tensor/buffer.h"

namespace tutti::kernels::cuda {
namespace {

using Step = std::function<Result<>()>;

std::unique_ptr<CudaDevice> open_device_with_graphs() {
  auto opened = CudaDevice::open({});
  REQUIRE(opened);
  return *std::move(opened);
}

// The second time is the one that is captured.
Result<> run_twice(CudaDevice& device, std::uint64_t key, const Step& step) {
  REQUIRE(device.run_repeated(key, step));
  return device.run_repeated(key, step);
}

}  // namespace

TEST_CASE(
    "graphs: no graph is replayed for a product of the same shapes that adds something else") {
  constexpr Index kSide = 16;
  const auto device = open_device_with_graphs();
  const std::vector<float> ones(kSide * kSide, 1.0F);
  const std::size_t bytes = ones.size() * sizeof(float);
  const FloatBuffer x(kSide * kSide, device.get());
  const FloatBuffer y(kSide * kSide, device.get());
  REQUIRE(device->upload(x.data(), ones.data(), bytes));
  const ConstMatrix in(x.data(), kSide, kSide);
  const Matrix out(y.data(), kSide, kSide);
  const Product zero{.left = in, .right = in, .output = out};
  Product more = zero;
  more.start = ChainStart::output;
  Product biased = zero;
  biased.bias = x.data();
  Product residual = zero;
  residual.residual = in;
  Product both = biased;
  both.residual = in;
  // After the chain of ones by ones: 16 and what was added.
  for (const auto& [product, expected] :
       {std::pair(zero, 16.0F), std::pair(more, 32.0F), std::pair(biased, 17.0F),
        std::pair(residual, 17.0F), std::pair(both, 18.0F)}) {
    // All by one key: shapes and ends alone tell them apart.
    for (int time = 0; time < 3; ++time) {
      REQUIRE(device->run_repeated(1, [&]() -> Result<> {
        if (product.start == ChainStart::output) {
          if (auto first = device->enqueue(ProductForm::nt, zero); !first) return first;
        }
        return device->enqueue(ProductForm::nt, product);
      }));
      std::vector<float> got(ones.size());
      REQUIRE(device->download(got.data(), y.data(), bytes));
      CHECK(got == std::vector<float>(ones.size(), expected));
    }
  }
  CHECK(device->graph_counts().plain == 5);
  CHECK(device->graph_counts().replayed == 5);
}

TEST_CASE("graphs: a step that allocates, waits or uploads is no step for a graph, and says so") {
  const auto device = open_device_with_graphs();
  const FloatBuffer memory(64, device.get());
  const std::vector<float> data(64);
  const auto after_work = [&](const Step& more) {
    return [&device, &memory, more]() -> Result<> {
      if (auto zeroed = device->zero(memory.data(), 256); !zeroed) return zeroed;
      return more();
    };
  };
  const auto waits = [&] { return device->synchronize(); };
  const auto allocates = [&]() -> Result<> {
    auto taken = device->allocate(16);
    if (!taken) return taken.error();
    device->release(*taken);
    return {};
  };
  const auto uploads = [&] { return device->upload(memory.data(), data.data(), 256); };
  std::uint64_t key = 0;
  for (const Step& step : {Step(waits), Step(allocates), Step(uploads)}) {
    const auto refused = run_twice(*device, ++key, after_work(step));
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == ErrorCode::internal);
    CHECK(refused.error().message.find("could not be captured") != std::string::npos);
    CHECK(refused.error().message.find("TUTTI_GPU_GRAPHS=0") != std::string::npos);
    // The device goes on.
    CHECK(run_twice(*device, ++key, after_work([] { return Result<>(); })));
    CHECK(device->synchronize());
  }
}

TEST_CASE("graphs: a capture ends with its step, also where that fails or throws") {
  const auto device = open_device_with_graphs();
  const FloatBuffer memory(64, device.get());
  int calls = 0;
  // Two of a step's calls are muted and plain, and two muted and captured.
  const auto fails = [&]() -> Result<> {
    if (++calls == 4) return Error{ErrorCode::invalid_argument, "of the step itself"};
    return device->zero(memory.data(), 256);
  };
  const auto failed = run_twice(*device, 1, fails);
  REQUIRE_FALSE(failed);
  CHECK(failed.error().message == "of the step itself");
  CHECK(device->synchronize());
  calls = 0;
  const auto throws = [&]() -> Result<> {
    if (++calls == 4) throw std::runtime_error("of the step itself");
    return device->zero(memory.data(), 256);
  };
  CHECK_THROWS_AS(run_twice(*device, 2, throws), std::runtime_error);
  CHECK(device->synchronize());
  CHECK(run_twice(*device, 3, [&] { return device->zero(memory.data(), 256); }));
}

TEST_CASE("graphs: every error of a capture is the program's, with what to do") {
  for (int code = cudaErrorStreamCaptureUnsupported; code <= cudaErrorStreamCaptureWrongThread;
       ++code) {
    const Error error = error_of(static_cast<cudaError_t>(code), "a call");
    INFO(error.message);
    CHECK(error.code == ErrorCode::internal);
    CHECK(error.message.find("TUTTI_GPU_GRAPHS=0") != std::string::npos);
  }
  CHECK(error_of(cudaErrorLaunchFailure, "a call").code == ErrorCode::unavailable);
}

}  // namespace tutti::kernels::cuda
