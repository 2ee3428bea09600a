// A training step on the GPU is the CPU's but for rounding: that ranks agree with each other proves
// nothing about what they compute. Of sizes at which a step cuts its work: more rows than a piece
// of a sum has, more tokens than a block has threads.
#include <catch2/catch.hpp>

#include "kernels/cuda/device.h"
#include "tests/support/larger.h"
#include "tests/unit/training/tiny_run.h"

namespace tutti::training {
namespace {

using kernels::cuda::CudaDevice;
using test::TinyJob;
using Inputs = kernels::cuda::Products::Inputs;

constexpr std::uint32_t kSequence = 64;
constexpr std::uint32_t kSamples = 5;

std::unique_ptr<TrainingJob> open_large(TinyJob& tiny) {
  tiny.spec().data.sequence = kSequence;
  tiny.spec().model.vocabulary = 300;
  return tiny.open();
}

std::vector<StepRecord> steps_of(const TrainingJob& job, kernels::Device* device) {
  Progress progress;
  Trainer trainer(job, 1, progress, device);
  const auto groups = test::form_group(1);
  REQUIRE(trainer.enter(*groups[0], {.generation = 1, .root = "/proc/none"}));
  std::vector<StepRecord> records;
  while (trainer.state().step < job.last_step()) {
    const auto outcome = trainer.step(*groups[0], 0);
    REQUIRE(outcome);
    records.push_back(outcome->record);
  }
  return records;
}

std::unique_ptr<CudaDevice> open(Inputs inputs) {
  auto opened = CudaDevice::open({.inputs = inputs});
  REQUIRE(opened);
  return *std::move(opened);
}

// Largest relative distance of losses and of gradients' norms.
struct Distance {
  double loss = 0.0;
  double norm = 0.0;
};

Distance distance(const std::vector<StepRecord>& here, const std::vector<StepRecord>& there) {
  REQUIRE(here.size() == there.size());
  Distance out;
  for (std::size_t i = 0; i < here.size(); ++i) {
    REQUIRE(here[i].tokens == there[i].tokens);
    REQUIRE(here[i].rate == there[i].rate);
    out.loss = test::larger(out.loss, std::abs(here[i].loss / there[i].loss - 1.0));
    out.norm = test::larger(out.norm, std::abs(here[i].grad_norm / there[i].grad_norm - 1.0));
  }
  return out;
}

}  // namespace

TEST_CASE("emulation: four steps on a GPU have the CPU's losses and norms but for rounding") {
  TinyJob tiny({.batch = kSamples, .shards = 1, .micro = kSamples});
  const auto job = open_large(tiny);
  const auto on_cpu = steps_of(*job, nullptr);
  REQUIRE(on_cpu.size() == 4);
  CHECK(on_cpu[0].tokens > 256);
  const auto exact = distance(steps_of(*job, open(Inputs::fp32).get()), on_cpu);
  INFO("fp32: loss " << exact.loss << ", norm " << exact.norm);
  CHECK(exact.loss < 1e-6);
  CHECK(exact.norm < 1e-5);
  CHECK(exact.loss + exact.norm > 0.0);
  // Inputs of products are rounded to 8 bits.
  const auto coarse = distance(steps_of(*job, open(Inputs::bf16).get()), on_cpu);
  INFO("bf16: loss " << coarse.loss << ", norm " << coarse.norm);
  CHECK(coarse.loss < 0x1p-8);
  CHECK(coarse.norm < 0x1p-5);
  CHECK(coarse.loss > exact.loss);
}

TEST_CASE("emulation: steps that keep rounded rows are those that keep none, and near the CPU's") {
  for (const char* const family : {"llama", "gpt2"}) {
    INFO(family);
    TinyJob tiny({.batch = kSamples, .shards = 1, .micro = kSamples});
    tiny.spec().model.family = family;
    if (std::string_view(family) == "gpt2") tiny.spec().model.kv_heads = 2;
    const auto wide = open_large(tiny);
    tiny.spec().train.precision = "bf16";
    const auto kept = open_large(tiny);
    REQUIRE(kept->kept() == models::Kept::attention);
    const auto steps = steps_of(*kept, open(Inputs::bf16).get());
    const auto near = distance(steps, steps_of(*wide, nullptr));
    INFO("loss " << near.loss << ", norm " << near.norm);
    CHECK(near.loss < 0x1p-8);
    CHECK(near.norm < 0x1p-5);
    // A job in fp32 keeps wide rows, also where the device's products round them.
    REQUIRE(wide->kept() == models::Kept::wide);
    const auto rounding = steps_of(*wide, open(Inputs::bf16).get());
    REQUIRE(rounding.size() == steps.size());
    for (std::size_t i = 0; i < steps.size(); ++i) CHECK(steps[i].weights == rounding[i].weights);
  }
}

}  // namespace tutti::training
