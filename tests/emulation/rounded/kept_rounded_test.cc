// What products alone read, kept as they read it: the same losses and gradients, bit by bit, as
// where each product rounds fp32 rows for itself.
#include <catch2/catch.hpp>

#include <cstring>
#include <optional>

#include "jobs/training/memory_estimate.h"
#include "kernels/cuda/device.h"
#include "tests/support/cuda_emulation/grid_counts.h"
#include "tests/unit/models/small_model.h"

namespace tutti::models {
namespace {

using kernels::cuda::CudaDevice;
using Inputs = kernels::cuda::Products::Inputs;
using test::Samples;

constexpr PassLimits kLimits{.rows_max = 100, .samples_max = 4};

struct Way {
  const char* family;
  Inputs inputs;
  Recompute recompute;
  double dropout;
};

struct Outcome {
  std::vector<float> gradients;
  std::vector<double> losses;
  std::uint64_t rounded = 0;   // launches
  std::uint64_t replayed = 0;  // micro-batches
  bool operator==(const Outcome& other) const {
    return losses == other.losses && gradients.size() == other.gradients.size() &&
           std::memcmp(gradients.data(), other.gradients.data(),
                       gradients.size() * sizeof(float)) == 0;
  }
};

enum class Weights { as_rows, wide };  // how products find them

// A shard of two micro-batches, twice, as what one call leaves in a band is there for the next; and
// four times where it is a graph: plain, captured, and replayed.
Outcome run(const DecoderDescription& description, const Way& way, Kept kept,
            Weights found = Weights::as_rows) {
  auto opened = CudaDevice::open({.inputs = way.inputs});
  REQUIRE(opened);
  CudaDevice& device = **opened;
  kernels::ThreadPool pool(1);
  const kernels::OpContext ctx{&pool, &device};
  const auto decoder = Decoder::create(description);
  REQUIRE(decoder);
  const auto& layout = decoder->layout();
  kernels::FloatBuffer fresh(static_cast<kernels::Index>(layout.elements()));
  decoder->initialise({&pool}, 42, fresh.span());
  kernels::FloatBuffer weights(fresh.size(), &device);
  REQUIRE(device.upload(weights.data(), fresh.data(), fresh.span().size_bytes()));
  kernels::FloatBuffer gradients(static_cast<kernels::Index>(layout.gradient_elements()), &device);
  TrainingPass pass(*decoder, kLimits, &device, way.recompute, kept);
  std::optional<RoundedWeights> rounded;
  if (kept != Kept::wide && found == Weights::as_rows) rounded.emplace(layout, device);
  Outcome outcome;
  const std::uint64_t before = emulation::grids_of("round_rows_kernel");
  const int times = way.dropout == 0 ? 4 : 2;
  for (int time = 0; time < times; ++time) {
    // As after an update.
    if (rounded) REQUIRE(rounded->round(weights.span()));
    const PassWeights taken(weights.span(), rounded ? rounded->data() : nullptr);
    REQUIRE(device.zero(gradients.data(), gradients.span().size_bytes()));
    for (const std::uint64_t micro : {0, 1}) {
      const Samples samples(
          micro == 0 ? std::vector<std::int32_t>{30, 1, 17} : std::vector<std::int32_t>{9, 70},
          description.vocabulary, 3 + micro);
      TokenBatch batch = samples.batch();
      batch.dropout = {way.dropout, 9, 1000 * micro};
      std::vector<SampleLoss> losses(samples.count());
      REQUIRE(pass.forward_backward(ctx, taken, batch, gradients.span(), losses));
      for (const SampleLoss& loss : losses) outcome.losses.push_back(loss.sum);
    }
    pass.finish_shard(ctx, gradients.span());
    // Another model's weights from now on.
    REQUIRE(device.synchronize());
    for (float& weight : fresh.span()) weight *= 1.01F;
    REQUIRE(device.upload(weights.data(), fresh.data(), fresh.span().size_bytes()));
  }
  REQUIRE(device.synchronize());
  outcome.replayed = device.graph_counts().replayed;
  outcome.rounded = emulation::grids_of("round_rows_kernel") - before;
  outcome.gradients.resize(gradients.span().size());
  REQUIRE(
      device.download(outcome.gradients.data(), gradients.data(), gradients.span().size_bytes()));
  return outcome;
}

DecoderDescription description_of(const char* family) {
  DecoderDescription d = test::small_description(family);
  d.feed_forward = 56;
  d.vocabulary_multiple = 8;
  return d;
}

}  // namespace

TEST_CASE("emulation: rows that products alone read are kept rounded, and no bit is another") {
  for (const char* const family : {"llama", "gpt2"}) {
    const DecoderDescription description = description_of(family);
    REQUIRE(can_be_rounded(description));
    for (const Inputs inputs : {Inputs::bf16, Inputs::fp16}) {
      for (const Recompute recompute : kRecomputes) {
        for (const double dropout : {0.0, 0.25}) {
          CAPTURE(family, static_cast<int>(inputs), to_string(recompute), dropout);
          const Way way{family, inputs, recompute, dropout};
          const Outcome wide = run(description, way, Kept::wide);
          const Outcome kept = run(description, way, Kept::products);
          CHECK(wide == kept);
          CHECK(kept.rounded < wide.rounded);
          CHECK(kept.replayed == (dropout == 0 ? 4 : 0));
          if (inputs == Inputs::fp16) continue;  // attention is fp32 there
          const Outcome all = run(description, way, Kept::attention);
          CHECK(wide == all);
          CHECK(all.rounded < kept.rounded);
          CHECK(all.replayed == kept.replayed);
          if (recompute != Recompute::none) continue;
          // As where there is no memory for rounded weights.
          CHECK(wide == run(description, way, Kept::attention, Weights::wide));
        }
      }
    }
  }
}

TEST_CASE("emulation: nor is one where heads are wider together than the stream, or than tiles") {
  const Way way{"llama", Inputs::bf16, Recompute::none, 0};
  DecoderDescription description = description_of("llama");
  description.head_dim = 16;
  REQUIRE(description.query_width() > description.width);
  CHECK(run(description, way, Kept::wide) == run(description, way, Kept::attention));
  description.head_dim = kernels::kRoundedHeadWidthMax + 8;
  CHECK(run(description, way, Kept::wide) == run(description, way, Kept::products));
}

// Its ops run in all orders by themselves (device_rounded_test.cc).
TEST_CASE("emulation: a step that keeps rounded rows has the same bits in any order of threads") {
  using emulation::Order;
  for (const auto kind : {Order::Kind::random, Order::Kind::warp_priority}) {
    const char* const family = kind == Order::Kind::random ? "llama" : "gpt2";
    const Way way{family, Inputs::bf16, Recompute::none, 0.0};
    const DecoderDescription description = description_of(family);
    const Outcome wide = run(description, way, Kept::wide);
    for (const std::uint64_t seed : {1, 2, 3}) {
      CAPTURE(family, seed);
      emulation::set_order({kind, seed});
      CHECK(run(description, way, Kept::attention) == wide);
    }
    emulation::set_order({});
  }
}

TEST_CASE("emulation: rows that are kept rounded take less memory") {
  for (const char* const family : {"llama", "gpt2"}) {
    DecoderDescription description = description_of(family);
    description.layers = 12;
    const auto bytes = [&](Recompute recompute, Kept kept) {
      return TrainingPass::workspace_bytes(description, kLimits, recompute, kept);
    };
    for (const Recompute recompute : kRecomputes) {
      CAPTURE(family, to_string(recompute));
      CHECK(bytes(recompute, Kept::products) < bytes(recompute, Kept::wide));
      CHECK(bytes(recompute, Kept::attention) < bytes(recompute, Kept::wide));
      if (recompute == Recompute::full) continue;
      CHECK(bytes(recompute, Kept::attention) < bytes(recompute, Kept::products));
    }
  }
}

TEST_CASE(
    "emulation: a model whose rows do not begin at 16 bytes, or that sums them, keeps them wide") {
  DecoderDescription d = description_of("llama");
  d.feed_forward = 52;
  CHECK_FALSE(can_be_rounded(d));
  d.feed_forward = 56;
  d.width = 44;
  CHECK_FALSE(can_be_rounded(d));
  spec::JobSpec spec;
  const DecoderDescription fits = description_of("gpt2");
  const auto kept_in = [&](const char* precision, const DecoderDescription& description) {
    spec.train.precision = precision;
    return training::kept_of(spec, description);
  };
  CHECK(kept_in("bf16", fits) == Kept::attention);
  CHECK(kept_in("fp16", fits) == Kept::products);
  CHECK(kept_in("tf32", fits) == Kept::wide);
  CHECK(kept_in("fp32", fits) == Kept::wide);
  CHECK(kept_in("bf16", d) == Kept::wide);
  // What is turned or gated is summed for no bias.
  DecoderDescription biased = fits;
  biased.positions = Positions::rotary;
  CHECK(kept_in("bf16", biased) == Kept::wide);
  biased = fits;
  biased.inner = FeedForward::gated;
  CHECK(kept_in("bf16", biased) == Kept::wide);
  DecoderDescription heads = fits;
  heads.head_dim = kernels::kRoundedHeadWidthMax + 8;
  CHECK(kept_in("bf16", heads) == Kept::products);
}

}  // namespace tutti::models
