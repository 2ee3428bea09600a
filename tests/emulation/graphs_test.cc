// Captured steps: what they may be replayed for, and what a capture cannot hold.
#include <catch2/catch.hpp>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <future>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "kernels/ops/add.h"
#include "kernels/ops/elementwise/activation.h"
#include "kernels/ops/embedding.h"
#include "kernels/ops/key_value_pages.h"
#include "kernels/ops/product.h"
#include "kernels/tensor/buffer.h"
#include "tests/support/patience.h"

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

TEST_CASE(
    "graphs: what a launch is told in numbers, in kinds, or by no address tells steps apart") {
  const auto signature_of = [](const auto&... args) {
    WorkWatch watch{.muted = true};
    work_watch = &watch;
    static_cast<void>(launches("a kernel", {1, 32}, args...));
    work_watch = nullptr;
    return watch.signature;
  };
  const int here = 0;
  const int there = 0;
  const int* const none = nullptr;
  const auto usual = signature_of(2, 0.5F, ChainStart::zero, &here);
  CHECK(signature_of(2, 0.5F, ChainStart::zero, &there) == usual);  // addresses are the key's
  CHECK(signature_of(3, 0.5F, ChainStart::zero, &here) != usual);
  CHECK(signature_of(2, 0.25F, ChainStart::zero, &here) != usual);
  CHECK(signature_of(2, 0.5F, ChainStart::output, &here) != usual);
  CHECK(signature_of(2, 0.5F, ChainStart::zero, none) != usual);
}

TEST_CASE("graphs: no graph is replayed for sums of other rows, or of another start") {
  constexpr Index kRows = 300;  // two pieces, as of 280
  constexpr Index kColumns = 8;
  const auto device = open_device_with_graphs();
  const std::vector<float> ones(kRows * kColumns, 1.0F);
  const FloatBuffer x(kRows * kColumns, device.get());
  const FloatBuffer sums(kColumns, device.get());
  REQUIRE(device->upload(x.data(), ones.data(), ones.size() * sizeof(float)));
  const auto add_up = [&](Index rows, Index columns, ChainStart start) {
    REQUIRE(device->upload(sums.data(), ones.data(), kColumns * sizeof(float)));
    // All by one key.
    REQUIRE(device->run_repeated(1, [&] {
      return device->enqueue(ColumnSums{.x = ConstMatrix(x.data(), rows, columns, kColumns),
                                        .output = sums.data(),
                                        .start = start});
    }));
    std::vector<float> got(kColumns);
    REQUIRE(device->download(got.data(), sums.data(), kColumns * sizeof(float)));
    return got;
  };
  const auto expected = [&](Index rows, Index columns, float start) {
    std::vector<float> all(kColumns, 1.0F);
    std::fill_n(all.begin(), columns, static_cast<float>(rows) + start);
    return all;
  };
  for (int time = 0; time < 3; ++time) {
    CHECK(add_up(kRows, kColumns, ChainStart::zero) == expected(kRows, kColumns, 0));
    CHECK(add_up(280, kColumns, ChainStart::zero) == expected(280, kColumns, 0));
    CHECK(add_up(kRows, 5, ChainStart::zero) == expected(kRows, 5, 0));
    CHECK(add_up(kRows, kColumns, ChainStart::output) == expected(kRows, kColumns, 1));
  }
  CHECK(device->graph_counts().plain == 4);
  CHECK(device->graph_counts().replayed == 4);
}

TEST_CASE("graphs: no graph is replayed for rows that are left in other ways") {
  constexpr Index kCount = 64;
  auto opened = CudaDevice::open({.inputs = Products::Inputs::bf16});
  REQUIRE(opened);
  CudaDevice& device = **opened;
  const FloatBuffer x(kCount, &device);
  const FloatBuffer y(kCount, &device);
  const FloatBuffer halves(kCount / 2, &device);
  const std::vector<float> ones(kCount, 1.0F);
  REQUIRE(device.upload(x.data(), ones.data(), kCount * sizeof(float)));
  const RoundedMatrix rounded(reinterpret_cast<std::uint16_t*>(halves.data()), 1, kCount);
  const auto left_wide = [&](bool wide) {
    REQUIRE(device.zero(y.data(), kCount * sizeof(float)));
    REQUIRE(device.run_repeated(1, [&] {
      return device.enqueue(ActivationForward{.kind = Activation::relu,
                                              .x = ConstMatrix(x.data(), 1, kCount),
                                              .y = wide ? y.matrix(1, kCount) : Matrix(),
                                              .rounded = rounded});
    }));
    std::vector<float> got(kCount);
    REQUIRE(device.download(got.data(), y.data(), kCount * sizeof(float)));
    return got == ones;
  };
  for (int time = 0; time < 3; ++time) {
    CHECK(left_wide(true));
    CHECK_FALSE(left_wide(false));
  }
  CHECK(device.graph_counts().plain == 2);
  CHECK(device.graph_counts().replayed == 2);
}

TEST_CASE("graphs: no graph is replayed for sequences that may have other numbers of chunks") {
  constexpr AttentionShape kShape{.heads = 1, .kv_heads = 1, .head_width = 8, .scale = 1.0F};
  const auto device = open_device_with_graphs();
  const FloatBuffer page(kv_page_floats(kShape), device.get());
  const FloatBuffer q(8, device.get());
  const FloatBuffer out(8, device.get());
  float* pages[] = {page.data()};
  const SequenceRows rows{0, 1, 0, pages};
  const auto attend = [&](Index positions) {
    REQUIRE(device->run_repeated(1, [&] {
      return device->enqueue(AttentionCached{kShape,
                                             ConstMatrix(q.data(), 1, 8),
                                             std::span(&rows, 1),
                                             Matrix(out.data(), 1, 8),
                                             {.positions = positions, .pages = 2000}});
    }));
  };
  // Chunks are spread over as many blocks in both; how far their parts lie apart is not alike.
  for (const Index positions : {600'000, 800'000, 600'000, 800'000}) attend(positions);
  CHECK(device->graph_counts().plain == 2);
  CHECK(device->graph_counts().captured == 2);
  REQUIRE(device->synchronize());
}

TEST_CASE(
    "graphs: scratch memory is one piece of the largest op, and graphs that had an earlier one are "
    "made anew") {
  constexpr Index kRows = 512;  // two pieces of sums, in scratch memory
  constexpr Index kColumns = 8;
  constexpr std::size_t kMiB = std::size_t{1} << 20;
  const auto device = open_device_with_graphs();
  const std::vector<float> ones(kRows * kColumns, 1.0F);
  const FloatBuffer x(kRows * kColumns, device.get());
  const FloatBuffer sums(kColumns, device.get());
  REQUIRE(device->upload(x.data(), ones.data(), ones.size() * sizeof(float)));
  const auto add_up = [&] {
    for (int time = 0; time < 3; ++time) {
      REQUIRE(device->zero(sums.data(), kColumns * sizeof(float)));
      REQUIRE(device->run_repeated(1, [&] {
        return device->enqueue(
            ColumnSums{.x = ConstMatrix(x.data(), kRows, kColumns), .output = sums.data()});
      }));
      std::vector<float> got(kColumns);
      REQUIRE(device->download(got.data(), sums.data(), kColumns * sizeof(float)));
      CHECK(got == std::vector<float>(kColumns, static_cast<float>(kRows)));
    }
  };
  const auto next_op = [&] { REQUIRE(device->enqueue(AddInto{sums.span(), sums.span()})); };
  add_up();
  CHECK(device->graph_counts().replayed == 1);
  next_op();
  // Ops that take more and more, the last in two pieces.
  for (std::size_t size = 9; size <= 20; ++size) {
    REQUIRE(device->scratch().take(size * kMiB));
    CHECK(device->scratch().reserved() <= (size + 8) * kMiB);
    next_op();
  }
  REQUIRE(device->scratch().take(15 * kMiB));
  REQUIRE(device->scratch().take(17 * kMiB));
  next_op();
  REQUIRE(device->scratch().take(32 * kMiB));
  CHECK(device->scratch().reserved() == 32 * kMiB);
  add_up();
  CHECK(device->graph_counts().plain == 2);
  CHECK(device->graph_counts().captured == 2);
  CHECK(device->graph_counts().replayed == 2);
}

TEST_CASE("graphs: more buckets than are kept push out those that are not run, and no others") {
  const auto device = open_device_with_graphs();
  const FloatBuffer memory(64, device.get());
  const auto run = [&](std::uint64_t key) {
    REQUIRE(device->run_repeated(key, [&] { return device->zero(memory.data(), 256); }));
  };
  constexpr std::uint64_t kOften = 0;
  run(kOften);
  run(kOften);
  for (std::uint64_t key = 1; key <= StepGraphs::kGraphsMax + 5; ++key) {
    run(key);
    run(kOften);
  }
  const StepGraphs::Counts& counts = device->graph_counts();
  CHECK(counts.plain == 1 + StepGraphs::kGraphsMax + 5);
  CHECK(counts.captured == 1);
  CHECK(counts.replayed == StepGraphs::kGraphsMax + 5);
  run(1);  // gone
  run(StepGraphs::kGraphsMax + 5);
  CHECK(counts.plain == 2 + StepGraphs::kGraphsMax + 5);
  CHECK(counts.captured == 2);
}

#ifdef TUTTI_CUDA_EMULATION
namespace {

constexpr Index kColumns = 8;

// Rows 5 and 3 of a table, by a graph that is pushed out by others while it waits for its turn. It
// has its turn once the last of them comes, which waits for it, or once that has not waited.
std::vector<float> rows_of_pushed_out_graph(const std::vector<float>& table, bool waits) {
  const auto device = open_device_with_graphs();
  const FloatBuffer from(static_cast<Index>(table.size()), device.get());
  const FloatBuffer to(2 * kColumns, device.get());
  REQUIRE(device->upload(from.data(), table.data(), table.size() * sizeof(float)));
  const auto look_up = [&](const std::vector<std::int32_t>& tokens) {
    REQUIRE(device->run_repeated(0, [&] {
      return device->enqueue(EmbeddingForward{
          .table = ConstMatrix(from.data(), static_cast<Index>(table.size()) / kColumns, kColumns),
          .tokens = tokens,
          .output = Matrix(to.data(), 2, kColumns)});
    }));
  };
  look_up({1, 2});
  look_up({1, 2});
  REQUIRE(device->synchronize());
  std::promise<void> turn;
  emulation::enqueue(device->stream(), [turns = turn.get_future().share()] {
    turns.wait();
    return std::string();
  });
  look_up({5, 3});
  CHECK(device->graph_counts().replayed == 1);
  std::promise<void> pushed;
  std::thread later([&] {
    pushed.get_future().wait_for(test::patient(std::chrono::seconds(20)));
    turn.set_value();
  });
  for (std::uint64_t key = 1; key <= StepGraphs::kGraphsMax; ++key) {
    if (waits && key == StepGraphs::kGraphsMax) pushed.set_value();
    REQUIRE(device->run_repeated(key, [] { return Result<>(); }));
  }
  if (!waits) pushed.set_value();
  later.join();
  REQUIRE(device->synchronize());
  std::vector<float> rows(2 * kColumns);
  REQUIRE(device->download(rows.data(), to.data(), rows.size() * sizeof(float)));
  return rows;
}

}  // namespace

TEST_CASE("graphs: one that is pushed out ends before its memory does") {
  std::vector<float> table(8 * kColumns);
  for (std::size_t i = 0; i < table.size(); ++i) table[i] = static_cast<float>(i);
  std::vector<float> expected(table.begin() + 5 * kColumns, table.begin() + 6 * kColumns);
  expected.insert(expected.end(), table.begin() + 3 * kColumns, table.begin() + 4 * kColumns);
  CHECK(rows_of_pushed_out_graph(table, true) == expected);
  // Were nothing waited for, this would show.
  ::setenv("TUTTI_EMULATION_HOST_WAITS", "0", 1);
  const std::vector<float> without = rows_of_pushed_out_graph(table, false);
  ::unsetenv("TUTTI_EMULATION_HOST_WAITS");
  CHECK(without != expected);
}
#endif

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
