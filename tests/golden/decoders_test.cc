// Our decoders against Transformers and PyTorch, by the files of make_llama.py and make_gpt2.py.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>

#include "jobs/models/inference_pass.h"
#include "jobs/models/safetensors.h"
#include "kernels/ops/adamw.h"
#include "kernels/ops/gradient_norm.h"
#include "kernels/ops/math.h"
#include "protocol/base/file.h"
#include "tests/support/temporary_folder.h"

namespace tutti::models {
namespace {

using std::filesystem::path;

const path kAll = "tests/golden";
const path kFolder = kAll / "llama";

// What two correct fp32 programs may differ by, relative to the largest value: each of `depth`
// products in a row adds a rounding error of about sqrt(n) u of its result (n terms, u = 2^-24,
// errors of random sign); the two programs' errors are independent, and norms and softmax may
// double what comes in: hence the 4.
double tolerance(double depth, double terms) { return 4 * depth * std::sqrt(terms) * 0x1p-24; }

// Products on the way from tokens to logits, and there and back.
double depth_of(const DecoderDescription& d) { return 7.0 * d.layers + 1; }

std::vector<float> read_all(const SafetensorsReader& file, std::string_view name) {
  const TensorView* tensor = file.find(name);
  INFO(name);
  REQUIRE(tensor != nullptr);
  std::vector<float> values(tensor->elements());
  REQUIRE(file.read(name, tensor->shape, values));
  return values;
}

std::vector<std::int32_t> read_tokens(const SafetensorsReader& file, std::string_view name) {
  std::vector<std::int32_t> tokens;
  for (const float token : read_all(file, name)) tokens.push_back(static_cast<std::int32_t>(token));
  return tokens;
}

double largest(std::span<const float> values) {
  double most = 0;
  for (const float value : values) most = std::max(most, std::fabs(static_cast<double>(value)));
  return most;
}

double largest_difference(std::span<const float> a, std::span<const float> b) {
  REQUIRE(a.size() == b.size());
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    most = std::isnan(difference) ? INFINITY : std::max(most, difference);
  }
  return most;
}

std::vector<float> logits_of(const LoadedModel& model, std::span<const std::int32_t> tokens) {
  kernels::ThreadPool pool(2);
  InferencePass pass(model.decoder, {.rows_max = 128, .samples_max = 1});
  KvCache cache(model.decoder.description(), 128);
  std::vector<float> logits(tokens.size() * model.decoder.description().vocabulary);
  const std::vector<SequenceChunk> chunks = {{&cache, tokens, LogitRows::all}};
  REQUIRE(pass.run({&pool}, model.weights.span(), chunks, logits));
  return logits;
}

// The loop of make_llama.py: mean loss over the batch, norm clipped, AdamW with decay on matrices
// only.
class Trainer {
 public:
  explicit Trainer(LoadedModel model)
      : model_(std::move(model)),
        first_(model_.weights.size()),
        second_(model_.weights.size()),
        gradients_(static_cast<kernels::Index>(layout().gradient_elements())),
        pass_(model_.decoder, {.rows_max = kSamples * kLength, .samples_max = kSamples}) {}

  static constexpr std::uint32_t kSamples = 4;
  static constexpr std::uint32_t kLength = 24;

  const ParameterLayout& layout() const { return model_.decoder.layout(); }
  std::span<const float> gradients() const { return gradients_.span(); }

  // The mean loss; gradients() are then of the sum of losses.
  double forward_backward(std::span<const std::int32_t> batch) {
    std::vector<std::int32_t> tokens;
    std::vector<std::int32_t> targets;
    std::vector<std::int32_t> offsets = {0};
    for (std::uint32_t sample = 0; sample < kSamples; ++sample) {
      const auto row = batch.subspan(sample * (kLength + 1), kLength + 1);
      tokens.insert(tokens.end(), row.begin(), row.end() - 1);
      targets.insert(targets.end(), row.begin() + 1, row.end());
      offsets.push_back(static_cast<std::int32_t>(tokens.size()));
    }
    const auto arena = gradients_.span();
    std::fill(arena.begin(), arena.end(), 0.0F);
    std::vector<SampleLoss> losses(kSamples);
    REQUIRE(pass_.forward_backward(ctx(), model_.weights.span(), {tokens, targets, {}, offsets},
                                   arena, losses));
    pass_.finish_shard(ctx(), arena);
    double sum = 0;
    for (const SampleLoss& loss : losses) sum += loss.sum;
    return sum / kTargets;
  }

  // The norm of the mean gradient before clipping.
  double update(unsigned step) {
    std::vector<double> squares;
    for (const GridBlock& block : layout().blocks()) {
      double square = 0;
      REQUIRE(kernels::square_sums(ctx(), gradients_.span().subspan(block.offset, block.elements),
                                   std::span(&square, 1)));
      squares.push_back(square);
    }
    const double norm = std::sqrt(kernels::ordered_sum(squares)) / kTargets;
    const double factor = std::min(1.0, 1.0 / (norm + 1e-6)) / kTargets;
    for (const Parameter& parameter : layout().parameters()) {
      const auto part = [&](kernels::FloatBuffer& arena) {
        return arena.span().subspan(parameter.offset, parameter.elements);
      };
      REQUIRE(
          kernels::adamw_update(ctx(), {.settings = {.rate = 1e-2,
                                                     .beta1 = 0.9,
                                                     .beta2 = 0.95,
                                                     .epsilon = 1e-8,
                                                     .decay = parameter.decay ? 0.1 : 0.0,
                                                     .correction1 = 1 - kernels::power(0.9, step),
                                                     .correction2 = 1 - kernels::power(0.95, step),
                                                     .factor = static_cast<float>(factor)},
                                        .weight = part(model_.weights),
                                        .gradient = part(gradients_),
                                        .first = part(first_),
                                        .second = part(second_),
                                        .hashes = {}}));
    }
    return norm;
  }

  static constexpr double kTargets = kSamples * kLength;

 private:
  kernels::OpContext ctx() { return {&pool_}; }

  kernels::ThreadPool pool_{2};
  LoadedModel model_;
  kernels::FloatBuffer first_;
  kernels::FloatBuffer second_;
  kernels::FloatBuffer gradients_;
  TrainingPass pass_;
};

}  // namespace

TEST_CASE("decoders: a model saved by Transformers gives its logits") {
  for (const char* name :
       {"llama/tied", "llama/bf16", "llama/llama3", "gpt2/tied", "gpt2/short_names"}) {
    INFO(name);
    const auto model = load_model(kAll / name);
    REQUIRE(model);
    const auto expected = SafetensorsReader::open(kAll / name / "expected.safetensors");
    REQUIRE(expected);
    const auto wanted = read_all(*expected, "logits");
    const auto logits = logits_of(*model, read_tokens(*expected, "tokens"));
    const DecoderDescription& d = model->decoder.description();
    CHECK(largest_difference(logits, wanted) <
          tolerance(depth_of(d), d.feed_forward) * largest(wanted));
  }
}

TEST_CASE("llama: logits without the rotary scaling or with a wrong norm are far from it") {
  const auto expected = SafetensorsReader::open(kFolder / "llama3/expected.safetensors");
  const auto scaled = load_model(kFolder / "llama3");
  REQUIRE(expected);
  REQUIRE(scaled);
  const auto wanted = read_all(*expected, "logits");
  const auto tokens = read_tokens(*expected, "tokens");
  DecoderDescription d = scaled->decoder.description();
  const double allowed = tolerance(depth_of(d), d.feed_forward) * largest(wanted);
  const auto difference = [&](const DecoderDescription& description) {
    LoadedModel model{*Decoder::create(description), kernels::FloatBuffer(scaled->weights.size())};
    REQUIRE(load_weights(model.decoder, kFolder / "llama3", model.weights.span()));
    return largest_difference(logits_of(model, tokens), wanted);
  };
  CHECK(difference(d) < allowed);
  d.norm_epsilon = 1e-3;
  CHECK(difference(d) > 10 * allowed);
  d = scaled->decoder.description();
  d.rope_scaling = {};
  CHECK(difference(d) > 10 * allowed);
}

TEST_CASE("decoders: first gradients and the losses of ten AdamW steps are PyTorch's") {
  for (const char* name : {"llama/tied", "llama/llama3", "gpt2/tied"}) {
    INFO(name);
    auto model = load_model(kAll / name);
    REQUIRE(model);
    const auto expected = SafetensorsReader::open(kAll / name / "training.safetensors");
    REQUIRE(expected);
    const auto batches = read_tokens(*expected, "batches");
    const auto losses = read_all(*expected, "losses");
    const auto norms = read_all(*expected, "norms");
    const double allowed = tolerance(2 * depth_of(model->decoder.description()), Trainer::kTargets);
    Trainer trainer(*std::move(model));
    const std::size_t batch_tokens = Trainer::kSamples * (Trainer::kLength + 1);
    for (unsigned step = 0; step < losses.size(); ++step) {
      const double loss =
          trainer.forward_backward(std::span(batches).subspan(step * batch_tokens, batch_tokens));
      CHECK(loss == Approx(losses[step]).margin(1e-4).epsilon(0));
      for (const Parameter& parameter : trainer.layout().parameters()) {
        if (step > 0) break;
        INFO(parameter.name);
        auto wanted = read_all(*expected, "gradient." + parameter.name);
        for (float& value : wanted) value *= static_cast<float>(Trainer::kTargets);
        CHECK(largest_difference(trainer.gradients().subspan(parameter.offset, parameter.elements),
                                 wanted) < allowed * largest(wanted));
      }
      CHECK(trainer.update(step + 1) == Approx(norms[step]).epsilon(1e-4));
    }
  }
}

TEST_CASE("llama: a saved model loads with the same weights and description") {
  const auto model = load_model(kFolder / "llama3");
  REQUIRE(model);
  test::TemporaryFolder folder;
  for (int round = 0; round < 2; ++round) {  // the second replaces the first
    REQUIRE(save_model(model->decoder, model->weights.span(), folder.path()));
    const auto again = load_model(folder.path());
    REQUIRE(again);
    CHECK(again->decoder.description() == model->decoder.description());
    CHECK(std::ranges::equal(again->weights.span(), model->weights.span()));
  }
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path()), {}) == 2);
}

TEST_CASE("llama: a missing tensor and a wrong shape are one line that names them") {
  const auto error_with = [](std::string_view key, std::string_view value) {
    test::TemporaryFolder folder;
    std::filesystem::copy(kFolder / "tied", folder.path());
    std::string config = *read_file(folder.path() / "config.json");
    const auto at = config.find(key);
    REQUIRE(at != std::string::npos);
    config.replace(at, key.size(), value);
    REQUIRE(write_file_atomically(folder.path() / "config.json", config));
    const auto model = load_model(folder.path());
    REQUIRE_FALSE(model);
    CHECK(model.error().message.find('\n') == std::string::npos);
    return model.error();
  };
  const Error missing = error_with("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3");
  CHECK(missing.code == ErrorCode::not_found);
  CHECK(missing.message.find("tensor `model.layers.2.input_layernorm.weight` is missing") !=
        std::string::npos);
  const Error shape = error_with("\"intermediate_size\": 48", "\"intermediate_size\": 64");
  CHECK(shape.code == ErrorCode::invalid_argument);
  CHECK(shape.message.find("tensor `model.layers.0.mlp.down_proj.weight` has the shape "
                           "[32, 48], not [32, 64]") != std::string::npos);
}

}  // namespace tutti::models
