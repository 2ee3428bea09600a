// What a training job takes of a GPU's memory: what was estimated; and what becomes of one that
// does not fit.
#include <catch2/catch.hpp>

#include <cstdlib>

#include "jobs/training/memory_estimate.h"
#include "kernels/cuda/device.h"
#include "tests/unit/training/tiny_run.h"

namespace tutti::training {
namespace {

using kernels::cuda::CudaDevice;
using kernels::cuda::DeviceOptions;
using test::TinyJob;
using Hashes = std::vector<std::string>;
using Inputs = kernels::cuda::Products::Inputs;

std::unique_ptr<CudaDevice> open(Inputs inputs = Inputs::fp32) {
  // A captured step has memory of its own for the lists that it uploads.
  auto opened = CudaDevice::open({.inputs = inputs, .graphs = DeviceOptions::Graphs::off});
  REQUIRE(opened);
  return *std::move(opened);
}

Inputs inputs_of(std::string_view precision) {
  if (precision == "fp16") return Inputs::fp16;
  return precision == "bf16" ? Inputs::bf16 : Inputs::fp32;
}

// Of the weights after each of two steps.
Hashes run(Trainer& trainer) {
  const auto groups = test::form_group(1);
  REQUIRE(trainer.enter(*groups[0], {.generation = 1, .root = "/proc/none"}));
  Hashes hashes;
  for (int step = 0; step < 2; ++step) {
    const auto outcome = trainer.step(*groups[0], 0);
    REQUIRE(outcome);
    hashes.push_back(kernels::to_string(outcome->record.weights));
  }
  return hashes;
}

}  // namespace

TEST_CASE("emulation: a job that a device has no room for is refused with both numbers") {
  const TinyJob tiny;
  const auto job = tiny.open();
  ::setenv("TUTTI_EMULATION_MEMORY", "268435456", 1);
  const auto device = open();
  auto taken = device->allocate(*device->free_bytes() - (std::size_t{60} << 20));
  REQUIRE(taken);
  const auto refused = fit_memory(*job, device.get());
  device->release(*taken);
  ::unsetenv("TUTTI_EMULATION_MEMORY");
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == ErrorCode::invalid_argument);
  CHECK(refused.error().message.find("MB of memory on emulation, which has 60 MB free") !=
        std::string::npos);
  CHECK(refused.error().message.find("take a smaller train.micro") != std::string::npos);
}

TEST_CASE("emulation: a job that fits with recompute is told so") {
  TinyJob tiny({.batch = 8, .shards = 1, .micro = 8});
  tiny.spec().data.sequence = 256;
  tiny.spec().model.layers = 4;
  const auto job = tiny.open();
  const std::uint64_t whole = estimate_memory(job->spec)->bytes();
  const auto ways = less_kept(job->spec, job->decoder, *job->optimizer);
  REQUIRE(ways.size() == 2);
  ::setenv("TUTTI_EMULATION_MEMORY", "268435456", 1);
  const auto device = open();
  const auto with_room = [&](std::uint64_t bytes) {
    auto taken = device->allocate(*device->free_bytes() - bytes);
    REQUIRE(taken);
    const auto checked = fit_memory(*job, device.get());
    device->release(*taken);
    return checked ? std::string() : checked.error().message;
  };
  constexpr std::uint64_t kSome = 64 << 10;
  REQUIRE(ways[0].bytes + 2 * kSome < whole);
  CHECK(with_room(whole + kSome).empty());
  CHECK(with_room(ways[0].bytes + kSome).find("take train.recompute=selective, with which it ") !=
        std::string::npos);
  CHECK(with_room(ways[1].bytes + kSome).find("take train.recompute=full, with which it needs ") !=
        std::string::npos);
  ::unsetenv("TUTTI_EMULATION_MEMORY");
}

TEST_CASE(
    "emulation: a job without room for rounded weights has each product round them, with the same "
    "bits") {
  TinyJob tiny({.batch = 2, .shards = 1, .micro = 1});
  tiny.spec().model.width = 64;
  tiny.spec().model.layers = 4;
  tiny.spec().train.precision = "bf16";
  const auto job = tiny.open();
  const MemoryEstimate estimate = *estimate_memory(job->spec);
  constexpr std::uint64_t kSome = 64 << 10;
  REQUIRE(estimate.spare > 2 * kSome);
  ::setenv("TUTTI_EMULATION_MEMORY", "268435456", 1);
  const auto train_with = [&](std::uint64_t bytes) {
    const auto device = open(Inputs::bf16);
    auto taken = device->allocate(*device->free_bytes() - bytes);
    REQUIRE(taken);
    const auto fits = fit_memory(*job, device.get());
    device->release(*taken);
    if (!fits) return Hashes();
    Progress progress;
    Trainer trainer(*job, 1, progress, device.get());
    return run(trainer);
  };
  const Hashes rounded = train_with(estimate.bytes() + kSome);
  CHECK(rounded.size() == 2);
  CHECK(job->rounds_weights);
  CHECK(train_with(estimate.least() + kSome) == rounded);
  CHECK_FALSE(job->rounds_weights);
  CHECK(train_with(estimate.least() - kSome).empty());
  ::unsetenv("TUTTI_EMULATION_MEMORY");
}

TEST_CASE(
    "emulation: what a job takes of a device is what was estimated, but for the room of ops") {
  struct Kind {
    const char* precision;
    const char* optimizer = "adamw";
    const char* family = "llama";
    std::uint32_t feed_forward = 64;
    double dropout = 0;
    bool rounds_weights = true;
  };
  for (const Kind& kind :
       {Kind{"fp32"}, Kind{"bf16"}, Kind{"fp16"}, Kind{"fp32", "adafactor"}, Kind{"bf16", "muon"},
        Kind{"bf16", "adamw", "gpt2"}, Kind{"bf16", "adamw", "llama", 60},
        Kind{"bf16", "adamw", "gpt2", 64, 0.2}, Kind{"bf16", "adamw", "llama", 64, 0, false}}) {
    TinyJob tiny({.micro = 1});
    if (std::string_view(kind.family) == "gpt2") {
      tiny.spec().model.family = "gpt2";
      tiny.spec().model.kv_heads = tiny.spec().model.heads;
    }
    tiny.spec().model.feed_forward = kind.feed_forward;
    tiny.spec().train.dropout = kind.dropout;
    tiny.spec().train.recompute =
        kind.optimizer == std::string_view("adamw") ? "full" : "selective";
    tiny.spec().train.precision = kind.precision;
    tiny.spec().train.optimizer.name = kind.optimizer;
    const auto job = tiny.open();
    job->rounds_weights = kind.rounds_weights;
    const MemoryEstimate estimate = *estimate_memory(job->spec);
    const auto before = open()->free_bytes();
    const auto device = open(inputs_of(kind.precision));
    Progress progress;
    Trainer trainer(*job, 1, progress, device.get());
    run(trainer);
    const auto after = device->free_bytes();
    REQUIRE((before && after));
    const std::uint64_t scratch = device->scratch().reserved();
    // Of four frequencies at 1,024 positions.
    const bool turns = job->decoder.description().positions == models::Positions::rotary;
    const std::uint64_t angles = turns ? 2 * 4 * 1024 * sizeof(float) : 0;
    const std::uint64_t taken = *before - *after - scratch - angles;
    std::uint64_t held = 0;
    for (const MemoryPart& part : estimate.parts) {
      const bool counts = part.name != "scratch" && part.name != "ops" &&
                          (part.name != "rounded weights" || kind.rounds_weights);
      if (counts) held += part.bytes;
    }
    CAPTURE(kind.precision, kind.optimizer, kind.family, kind.feed_forward, kind.dropout, taken,
            held, scratch);
    constexpr std::uint64_t kSmall = 4 << 10;  // hashes and sums of blocks
    CHECK(taken >= held);
    CHECK(taken <= held + kSmall);
    CHECK(taken + scratch <= estimate.bytes());
  }
}

}  // namespace tutti::training
