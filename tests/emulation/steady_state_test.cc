// What a step costs beside its arithmetic once its ops have been there: no memory of the device,
// none of the heap for its ops, and as few launches as an optimizer's parameters fit into.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <string_view>

#include "jobs/optimizers/optimizer.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/scratch.h"
#include "tests/support/cuda_emulation/device_memory.h"
#include "tests/support/cuda_emulation/grid_counts.h"
#include "tests/unit/training/tiny_run.h"

namespace {

// Of this thread, but for what the stand-ins for the driver and its libraries take.
thread_local std::uint64_t taken_of_heap = 0;

}  // namespace

// Not inlined: gcc would see `free` of what it takes for its own new's.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  if (!tutti::emulation::OwnWork::here()) ++taken_of_heap;
  void* const memory = std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace tutti::training {
namespace {

using kernels::cuda::CudaDevice;
using test::TinyJob;
using Inputs = kernels::cuda::Products::Inputs;

// A shape is new the first time, captured the second, and launched from then on.
constexpr std::uint64_t kWarm = 4;
constexpr std::uint64_t kSteps = 6;
// Pieces of the heap that the trainer takes in a step for its own lists (subtrees, votes, a
// record), whatever the model.
constexpr std::uint64_t kOfTrainer = 20;

struct Taken {
  std::uint64_t of_heap = 0;
  std::uint64_t of_device = 0;
  std::uint64_t updates = 0, sums = 0;  // launches
};

// By all steps behind the first kWarm.
Taken taken_by_steps(const TinyJob& tiny, Inputs inputs, const char* update) {
  const auto job = tiny.open();
  const auto device = CudaDevice::open({.inputs = inputs});
  REQUIRE(device);
  Progress progress;
  Trainer trainer(*job, 1, progress, device->get());
  const auto groups = test::form_group(1);
  REQUIRE(trainer.enter(*groups[0], {.generation = 1, .root = tiny.checkpoints()}));
  const auto so_far = [&] {
    return Taken{taken_of_heap, emulation::pieces_taken(), emulation::grids_of(update),
                 emulation::grids_of("square_sums_kernel")};
  };
  Taken before;
  while (trainer.state().step < kSteps) {
    if (trainer.state().step == kWarm) before = so_far();
    const bool stepped = trainer.step(*groups[0], 0).ok();
    if (!stepped) FAIL("no step");
  }
  const Taken after = so_far();
  return {after.of_heap - before.of_heap, after.of_device - before.of_device,
          after.updates - before.updates, after.sums - before.sums};
}

}  // namespace

TEST_CASE("host scratch: pieces are aligned and apart, and an op that was there takes nothing") {
  kernels::cuda::HostScratch scratch;
  const auto op = [&](std::size_t pieces) {
    scratch.reset();
    std::byte* end = nullptr;
    for (std::size_t i = 0; i < pieces; ++i) {
      const std::size_t bytes = 1 + i * 977 % 5000;
      const std::size_t alignment = std::size_t{1} << i % 7;
      auto* const piece = static_cast<std::byte*>(scratch.allocate(bytes, alignment));
      REQUIRE(reinterpret_cast<std::uintptr_t>(piece) % alignment == 0);
      // Behind the one before, or in memory of its own.
      REQUIRE((piece >= end || piece + bytes <= end - 1));
      std::fill_n(piece, bytes, std::byte{1});
      end = piece + bytes;
    }
  };
  for (const std::size_t pieces : {1, 3, 200, 90, 200}) op(pieces);
  const std::uint64_t before = taken_of_heap;
  op(200);
  op(7);
  op(200);
  const std::uint64_t after = taken_of_heap;
  CHECK(after == before);
}

TEST_CASE("emulation: a step takes no memory of the device, and its ops none of the heap") {
  struct Row {
    const char* precision;
    Inputs inputs;
    const char* family;
    const char* recompute;
  };
  const Row rows[] = {{"fp32", Inputs::fp32, "llama", "full"},
                      {"bf16", Inputs::bf16, "gpt2", "none"}};
  for (const Row& row : rows) {
    INFO(row.family << " in " << row.precision << ", recompute " << row.recompute);
    TinyJob tiny({.batch = 3, .shards = 2, .micro = 2, .steps = kSteps});
    tiny.spec().model.family = row.family;
    if (std::string_view(row.family) == "gpt2") tiny.spec().model.kv_heads = 2;
    tiny.spec().train.precision = row.precision;
    tiny.spec().train.recompute = row.recompute;
    const Taken taken = taken_by_steps(tiny, row.inputs, "adamw_kernel");
    CHECK(taken.of_device == 0);
    CHECK(taken.of_heap <= kOfTrainer * (kSteps - kWarm));
    tiny.spec().model.layers = 3;
    CHECK(taken_by_steps(tiny, row.inputs, "adamw_kernel").of_heap == taken.of_heap);
  }
}

TEST_CASE("emulation: an update by elements is a launch of all parameters, as is the norm's sum") {
  const std::pair<const char*, const char*> optimizers[] = {
      {"adamw", "adamw_kernel"},
      {"adamw8", "adamw8_kernel"},
      {"lion", "lion_kernel"},
      {"sgd", "sgd_kernel"},
      {"schedule_free", "schedule_free_kernel"}};
  for (const auto& [optimizer, kernel] : optimizers) {
    INFO(optimizer);
    TinyJob tiny({.batch = 2, .shards = 2, .micro = 1, .steps = kSteps});
    tiny.spec().train.optimizer.name = optimizer;
    const Taken taken = taken_by_steps(tiny, Inputs::fp32, kernel);
    CHECK(taken.updates == kSteps - kWarm);
    CHECK(taken.sums == kSteps - kWarm);
    CHECK(taken.of_device == 0);
    CHECK(taken.of_heap <= kOfTrainer * (kSteps - kWarm));
  }
}

}  // namespace tutti::training
