#include "jobs/models/training_pass.h"

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>
#include <numeric>
#include <string>

#include "jobs/models/layer.h"
#include "kernels/ops/cpu_path.h"
#include "kernels/tensor/device_failure.h"
#include "tests/support/skip.h"
#include "tests/unit/models/small_model.h"

namespace {

std::atomic<std::uint64_t> allocations{0};

}  // namespace

// Not inlined: gcc would see `free` of what it takes for its own new's.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  ++allocations;
  void* memory = std::malloc(bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace tutti::models {
namespace {

using test::Samples;
using test::small_description;

constexpr PassLimits kLimits{.rows_max = 256, .samples_max = 8};

struct Outcome {
  std::vector<float> gradients;
  std::vector<double> losses;
  std::uint64_t targets = 0;

  bool operator==(const Outcome& other) const {
    return targets == other.targets && losses == other.losses &&
           gradients.size() == other.gradients.size() &&
           std::memcmp(gradients.data(), other.gradients.data(),
                       gradients.size() * sizeof(float)) == 0;
  }
};

class Model {
 public:
  explicit Model(const DecoderDescription& description, int threads = 1,
                 Recompute recompute = Recompute::none)
      : pool_(threads),
        decoder_(*Decoder::create(description)),
        weights_(static_cast<kernels::Index>(decoder_.layout().elements())),
        pass_(decoder_, kLimits, nullptr, recompute) {
    decoder_.initialise(ctx(), 42, weights_.span());
  }

  kernels::OpContext ctx() { return {&pool_}; }
  const Decoder& decoder() const { return decoder_; }
  std::span<float> weights() { return weights_.span(); }
  TrainingPass& pass() { return pass_; }
  void drop_share(double rate) { dropout_rate_ = rate; }

  // One shard in micro-batches that end before the samples in `cuts`.
  Outcome run(const Samples& samples, std::vector<std::size_t> cuts = {}) {
    Outcome outcome;
    outcome.gradients.resize(decoder_.layout().gradient_elements());
    cuts.push_back(samples.count());
    std::size_t from = 0;
    for (const std::size_t to : cuts) {
      add_micro_batch(samples, from, to, outcome);
      from = to;
    }
    pass_.finish_shard(ctx(), outcome.gradients);
    return outcome;
  }

  double loss(const Samples& samples) {
    std::vector<float> losses(samples.tokens.size());
    REQUIRE(pass_.token_losses(ctx(), weights(), samples.batch(), losses));
    double sum = 0;
    for (const float loss : losses) sum += static_cast<double>(loss);
    return sum;
  }

 private:
  void add_micro_batch(const Samples& samples, std::size_t from, std::size_t to, Outcome& outcome) {
    const auto begin = static_cast<std::size_t>(samples.offsets[from]);
    const auto rows = static_cast<std::size_t>(samples.offsets[to]) - begin;
    std::vector<std::int32_t> offsets(
        samples.offsets.begin() + static_cast<std::ptrdiff_t>(from),
        samples.offsets.begin() + static_cast<std::ptrdiff_t>(to + 1));
    for (std::int32_t& offset : offsets) offset -= static_cast<std::int32_t>(begin);
    std::vector<SampleLoss> losses(to - from);
    REQUIRE(pass_.forward_backward(ctx(), weights(),
                                   {std::span(samples.tokens).subspan(begin, rows),
                                    std::span(samples.targets).subspan(begin, rows),
                                    {},
                                    offsets,
                                    {dropout_rate_, 9, kFirstRow + begin}},
                                   outcome.gradients, losses));
    for (const SampleLoss& loss : losses) {
      outcome.losses.push_back(loss.sum);
      outcome.targets += loss.targets;
    }
  }

  static constexpr std::uint64_t kFirstRow = 1'000'000;

  double dropout_rate_ = 0;
  kernels::ThreadPool pool_;
  Decoder decoder_;
  kernels::FloatBuffer weights_;
  TrainingPass pass_;
};

// Longer than a block of keys, shorter than a vector, one token.
Samples ragged() { return Samples({70, 1, 5, 40, 17}, 101, 3); }

// Each family, with and without tied embeddings.
std::vector<DecoderDescription> all_descriptions() {
  std::vector<DecoderDescription> all;
  for (const Family& family : families()) {
    for (const bool tied : {true, false}) {
      all.push_back(small_description(family.name));
      all.back().tied = tied;
    }
  }
  return all;
}

// Norms and biases begin as ones and zeros, which would hide one that is left out.
void make_uneven(Model& model) {
  Rng rng(13);
  for (const Parameter& parameter : model.decoder().layout().parameters()) {
    if (parameter.shape.size() > 1) continue;
    for (float& value : model.weights().subspan(parameter.offset, parameter.elements)) {
      value += static_cast<float>(rng.uniform() * 0.2 - 0.1);
    }
  }
}

}  // namespace

TEST_CASE("training pass: micro-batches give the bits of one batch, in each family") {
  for (const DecoderDescription& description : all_descriptions()) {
    Model model(description);
    const Samples samples = ragged();
    const Outcome whole = model.run(samples);
    CHECK(whole.targets > 100);
    CHECK(model.run(samples, {1}) == whole);
    CHECK(model.run(samples, {1, 2, 3, 4}) == whole);
    CHECK(model.run(samples, {3}) == whole);
  }
}

TEST_CASE("training pass: any number of threads gives the same bits") {
  const Samples samples = ragged();
  for (const Family& family : families()) {
    const DecoderDescription description = small_description(family.name);
    const Outcome one = Model(description, 1).run(samples);
    CHECK(Model(description, 2).run(samples) == one);
    CHECK(Model(description, 3).run(samples, {2}) == one);
  }
}

TEST_CASE("training pass: every instruction set gives the same bits") {
  const kernels::CpuPath before = kernels::cpu_path();
  const Samples samples = ragged();
  const Outcome usual = Model(small_description()).run(samples);
  for (const auto path : kernels::kCpuPaths) {
    if (!kernels::cpu_has(path)) {
      test::skip_part("this machine has no " + std::string(kernels::to_string(path)));
      continue;
    }
    REQUIRE(kernels::choose_cpu_path(path));
    CHECK(Model(small_description(), 2).run(samples) == usual);
  }
  REQUIRE(kernels::choose_cpu_path(before));
}

TEST_CASE("training pass: what is made again has the bits of what is kept, in each family") {
  const Samples samples = ragged();
  for (DecoderDescription description : all_descriptions()) {
    description.layers = 3;
    for (const double rate : {0.0, 0.25}) {
      Model model(description);
      make_uneven(model);
      model.drop_share(rate);
      const Outcome kept = model.run(samples);
      for (const Recompute recompute : {Recompute::selective, Recompute::full}) {
        INFO(description.family << ", dropout " << rate << ", " << to_string(recompute));
        Model again(description, 2, recompute);
        make_uneven(again);
        again.drop_share(rate);
        CHECK(again.run(samples) == kept);
        CHECK(again.run(samples, {2}) == kept);
      }
    }
  }
}

TEST_CASE("training pass: of each layer but one, activations that are made again take no memory") {
  const auto floats = [](const DecoderDescription& description, Recompute recompute) {
    return TrainingPass::workspace_bytes(description, kLimits, recompute) / sizeof(float);
  };
  for (const Family& family : families()) {
    DecoderDescription d = small_description(family.name);
    d.layers = 5;
    const bool gated = d.inner == FeedForward::gated;
    const std::uint64_t statistics = d.norm == Norm::layer ? 4 : 2;
    const std::uint64_t rows = 2 * d.width + d.feed_forward + statistics;
    const std::uint64_t products = d.width + 2 * d.query_width() + 2 * d.kv_width() +
                                   (gated ? 2 : 1) * d.feed_forward + d.heads;
    const std::uint64_t kept = floats(d, Recompute::none);
    CHECK(kept - floats(d, Recompute::selective) == 4 * kLimits.rows_max * rows);
    CHECK(kept - floats(d, Recompute::full) == 4 * kLimits.rows_max * (rows + products));
  }
  CHECK(recompute_of("selective") == Recompute::selective);
  CHECK_FALSE(recompute_of("some"));
}

TEST_CASE("training pass: what is dropped follows the row's number, not its place in a batch") {
  const Samples samples = ragged();
  for (const DecoderDescription& description : all_descriptions()) {
    Model model(description);
    const Outcome whole = model.run(samples);
    model.drop_share(0.25);
    const Outcome dropped = model.run(samples);
    CHECK_FALSE(dropped == whole);
    CHECK(model.run(samples, {1, 3}) == dropped);
    CHECK(model.loss(samples) == Model(description).loss(samples));  // a loss alone drops nothing
  }
}

TEST_CASE("training pass: a step after the first allocates nothing") {
  // One thread: with more, scratch memory grows when a thread first gets its largest piece of work.
  kernels::ThreadPool pool(1);
  const kernels::OpContext ctx{&pool};
  const auto decoder = Decoder::create(small_description());
  kernels::FloatBuffer weights(static_cast<kernels::Index>(decoder->layout().elements()));
  kernels::FloatBuffer gradients(
      static_cast<kernels::Index>(decoder->layout().gradient_elements()));
  decoder->initialise(ctx, 1, weights.span());
  const auto recompute = GENERATE(Recompute::none, Recompute::selective, Recompute::full);
  TrainingPass pass(*decoder, kLimits, nullptr, recompute);
  const Samples samples = ragged();
  std::vector<SampleLoss> losses(samples.count());
  const auto step = [&] {
    return pass.forward_backward(ctx, weights.span(), samples.batch(), gradients.span(), losses);
  };
  REQUIRE(step());
  const auto scratch = [&] { return pool.op_scratch().reserved() + pool.scratch(0).reserved(); };
  const std::size_t reserved = scratch();
  const std::uint64_t before = allocations.load();
  const bool stepped = step().ok();
  const std::uint64_t after = allocations.load();
  CHECK(stepped);
  CHECK(after == before);
  CHECK(scratch() == reserved);
}

TEST_CASE("training pass: a sample's loss does not depend on its neighbours") {
  Model model(small_description());
  const Samples samples = ragged();
  const Outcome all = model.run(samples);
  std::vector<float> alone(70);
  const std::vector<std::int32_t> offsets = {0, 70};
  REQUIRE(model.pass().token_losses(
      model.ctx(), model.weights(),
      {std::span(samples.tokens).first(70), std::span(samples.targets).first(70), {}, offsets},
      alone));
  double sum = 0;
  for (const float loss : alone) sum += static_cast<double>(loss);
  CHECK(sum == all.losses.front());
}

// For each parameter, the slope of the loss along a random direction u of length 1, from central
// differences, against u * gradient. The loss is about 500 with an error of some 1e-5 from fp32
// forward passes, so a step of h = 1e-2 leaves 1e-3, and its third-order term adds h^2 times the
// third derivative, which these slopes (3 to 100) stay well above.
TEST_CASE("training pass: gradients agree with finite differences, in each family") {
  const double rate = GENERATE(0.0, 0.25);
  for (const DecoderDescription& description : all_descriptions()) {
    Model model(description);
    make_uneven(model);
    model.drop_share(rate);
    const Samples samples = ragged();
    const Outcome outcome = model.run(samples);
    Rng rng(11);
    for (const Parameter& parameter : model.decoder().layout().parameters()) {
      const auto values = model.weights().subspan(parameter.offset, parameter.elements);
      const std::vector<float> before(values.begin(), values.end());
      std::vector<double> direction(values.size());
      double squares = 0;
      double slope = 0;
      for (std::size_t i = 0; i < direction.size(); ++i) {
        // Half noise, half the gradient itself, so that the slope is not small by chance.
        const double gradient = static_cast<double>(outcome.gradients[parameter.offset + i]);
        direction[i] = gradient + (rng.uniform() - 0.5);
        squares += direction[i] * direction[i];
        slope += direction[i] * gradient;
      }
      slope /= std::sqrt(squares);
      const double step = 1e-2;
      const auto loss_at = [&](double distance) {
        for (std::size_t i = 0; i < direction.size(); ++i) {
          values[i] = before[i] + static_cast<float>(distance * direction[i] / std::sqrt(squares));
        }
        if (rate == 0) return model.loss(samples);
        const std::vector<double> losses = model.run(samples).losses;
        return std::accumulate(losses.begin(), losses.end(), 0.0);
      };
      const double measured = (loss_at(step) - loss_at(-step)) / (2 * step);
      std::copy(before.begin(), before.end(), values.begin());
      INFO(parameter.name << " tied " << description.tied << " dropout " << rate);
      CHECK(slope == Approx(measured).epsilon(5e-3).margin(5e-3));
    }
  }
}

TEST_CASE("training pass: wrong batches are refused and nothing is written") {
  Model model(small_description());
  const Samples good({3, 2}, 101, 1);
  std::vector<float> gradients(model.decoder().layout().gradient_elements(), 7.0F);
  std::vector<SampleLoss> losses(2, {5.0, 5});
  const auto code = [&](const TokenBatch& batch) {
    const auto result =
        model.pass().forward_backward(model.ctx(), model.weights(), batch, gradients, losses);
    REQUIRE_FALSE(result);
    return result.error().code;
  };
  auto tokens = good.tokens;
  tokens[4] = 101;
  CHECK(code({tokens, good.targets, {}, good.offsets}) == ErrorCode::invalid_argument);
  auto targets = good.targets;
  targets[0] = -2;
  CHECK(code({good.tokens, targets, {}, good.offsets}) == ErrorCode::invalid_argument);
  const std::vector<std::int32_t> crossed = {0, 4, 3};
  CHECK(code({good.tokens, good.targets, {}, crossed}) == ErrorCode::invalid_argument);
  const std::vector<std::int32_t> short_of_all = {0, 3, 4};
  CHECK(code({good.tokens, good.targets, {}, short_of_all}) == ErrorCode::invalid_argument);
  CHECK(code(Samples({200, 100}, 101, 1).batch()) == ErrorCode::invalid_argument);
  CHECK(code(Samples({1, 1, 1, 1, 1, 1, 1, 1, 1}, 101, 1).batch()) == ErrorCode::invalid_argument);
  CHECK(code({{}, {}, {}, good.offsets}) == ErrorCode::invalid_argument);
  for (const double rate : {-0.1, 1.0, std::nan("")}) {
    CHECK(code({good.tokens, good.targets, {}, good.offsets, {.rate = rate}}) ==
          ErrorCode::invalid_argument);
  }
  DecoderDescription of_two = small_description("gpt2");
  of_two.positions_max = 2;
  Model learned(of_two);
  std::vector<float> token_losses(5, 7.0F);
  const auto beyond =
      learned.pass().token_losses(learned.ctx(), learned.weights(), good.batch(), token_losses);
  REQUIRE_FALSE(beyond);
  CHECK(beyond.error().message == "position 2 is beyond the 2 that the model has learned");
  CHECK(token_losses == std::vector<float>(5, 7.0F));
  CHECK(std::all_of(gradients.begin(), gradients.end(), [](float g) { return g == 7.0F; }));
  CHECK(losses[0].sum == 5.0);
}

TEST_CASE(
    "models: what a device has nothing for, or was misused in, ends a pass by its own class") {
  must({});
  for (const ErrorCode code :
       {ErrorCode::unavailable, ErrorCode::unsupported, ErrorCode::internal}) {
    try {
      must(Error{code, "an op's words"});
      FAIL("it went on");
    } catch (const kernels::DeviceFailure& failure) {
      CHECK(failure.error() == Error{code, "an op's words"});
    }
  }
}

TEST_CASE("decoder: fresh weights depend on seed, name and index only") {
  DecoderDescription description = small_description();
  Model shallow(description);
  description.layers = 8;
  Model deep(description);
  const auto values = [](Model& model, Role role, std::uint32_t layer) {
    const Parameter& parameter = model.decoder().layout().at(role, layer);
    return model.weights().subspan(parameter.offset, parameter.elements);
  };
  const auto a = values(shallow, Role::gate, 1);
  const auto b = values(deep, Role::gate, 1);
  CHECK(std::equal(a.begin(), a.end(), b.begin(), b.end()));
  // Residual projections shrink with depth: from 1/sqrt(4) to 1/sqrt(16).
  CHECK(values(shallow, Role::down, 0)[3] ==
        Approx(2 * values(deep, Role::down, 0)[3]).epsilon(1e-6));
  CHECK(values(shallow, Role::final_norm, 0)[0] == 1.0F);
  double squares = 0;
  for (const float value : a) squares += static_cast<double>(value * value);
  CHECK(std::sqrt(squares / static_cast<double>(a.size())) == Approx(0.2).epsilon(0.05));
}

}  // namespace tutti::models
