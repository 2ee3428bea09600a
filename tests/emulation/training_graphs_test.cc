// Training steps as captured graphs: the bits of steps that were enqueued op by op, and no graph
// where a replay would repeat what is to differ.
#include <catch2/catch.hpp>

#include "kernels/cuda/device.h"
#include "tests/unit/training/tiny_run.h"

namespace tutti::training {
namespace {

using kernels::cuda::CudaDevice;
using kernels::cuda::DeviceOptions;
using kernels::cuda::StepGraphs;
using test::TinyJob;
using Inputs = kernels::cuda::Products::Inputs;

struct Outcome {
  std::vector<StepRecord> records;
  StepGraphs::Counts counts;
};

Inputs inputs_of(std::string_view precision) {
  if (precision == "fp16") return Inputs::fp16;
  return precision == "bf16" ? Inputs::bf16 : Inputs::fp32;
}

Outcome run(const TinyJob& tiny, DeviceOptions::Graphs graphs) {
  const auto job = tiny.open();
  const auto device =
      CudaDevice::open({.inputs = inputs_of(job->spec.train.precision), .graphs = graphs});
  REQUIRE(device);
  Progress progress;
  Trainer trainer(*job, 1, progress, device->get());
  const auto groups = test::form_group(1);
  REQUIRE(trainer.enter(*groups[0], {.generation = 1, .root = tiny.checkpoints()}));
  Outcome outcome;
  while (trainer.state().step < job->last_step()) {
    const auto step = trainer.step(*groups[0], 0);
    REQUIRE(step);
    outcome.records.push_back(step->record);
  }
  outcome.counts = (*device)->graph_counts();
  return outcome;
}

void check_same(const Outcome& a, const Outcome& b) {
  REQUIRE(a.records.size() == b.records.size());
  for (std::size_t i = 0; i < a.records.size(); ++i) {
    CAPTURE(a.records[i].step);
    CHECK(a.records[i].weights == b.records[i].weights);
    CHECK(a.records[i].loss == b.records[i].loss);
    CHECK(a.records[i].skipped == b.records[i].skipped);
  }
}

constexpr auto kOn = DeviceOptions::Graphs::on;
constexpr auto kOff = DeviceOptions::Graphs::off;

}  // namespace

TEST_CASE("emulation: micro-batches of a shape are one graph for each buffer, with the same bits") {
  using Kind = std::pair<const char*, const char*>;
  for (const auto& [precision, recompute] :
       {Kind("fp32", "none"), Kind("fp32", "full"), Kind("bf16", "none"), Kind("bf16", "full")}) {
    for (const char* const family : {"llama", "gpt2"}) {
      INFO(family << ", " << precision << ", recompute " << recompute);
      // Two samples a shard and one in the last, of three shards in two buffers.
      TinyJob tiny({.batch = 7, .shards = 4, .micro = 2, .steps = 5});
      tiny.spec().model.family = family;
      if (std::string_view(family) == "gpt2") tiny.spec().model.kv_heads = 2;
      tiny.spec().train.recompute = recompute;
      tiny.spec().train.precision = precision;
      const Outcome captured = run(tiny, kOn);
      const Outcome plain = run(tiny, kOff);
      check_same(captured, plain);
      CHECK(plain.counts.captured == 0);
      const StepGraphs::Counts& counts = captured.counts;
      // One for each shape that a buffer meets, and the token that was rehearsed with.
      CHECK(counts.plain <= 6);
      CHECK(counts.captured <= 5);
      CHECK(counts.replayed > counts.plain + counts.captured);
    }
  }
}

TEST_CASE("emulation: a graph is not replayed with another scale of the losses") {
  TinyJob tiny({.batch = 4, .shards = 1, .micro = 1, .steps = 8});
  tiny.spec().train.precision = "fp16";
  tiny.spec().train.scaling = {.first = 32768, .every = 2};
  const Outcome captured = run(tiny, kOn);
  check_same(captured, run(tiny, kOff));
  CHECK(captured.records.front().skipped);
  CHECK_FALSE(captured.records.back().loss_scale == captured.records.front().loss_scale);
  CHECK(captured.counts.replayed > 0);
}

TEST_CASE("emulation: what is dropped is drawn anew, by no graph") {
  TinyJob tiny({.batch = 4, .shards = 1, .micro = 1});
  tiny.spec().train.dropout = 0.2;
  const Outcome captured = run(tiny, kOn);
  check_same(captured, run(tiny, kOff));
  CHECK(captured.counts.captured == 0);
}

}  // namespace tutti::training
