#include "jobs/models/serving_weights.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "jobs/models/inference_pass.h"
#include "protocol/spec/help.h"
#include "tests/unit/models/small_model.h"

namespace tutti::models {
namespace {

using test::Samples;
using test::small_description;

// Matrices of whole blocks of 256, as the largest formats want them.
DecoderDescription description_of_blocks(std::string_view family = "llama") {
  DecoderDescription d = small_description(family);
  d.width = 256;
  d.head_dim = 64;
  d.feed_forward = 512;
  d.tied = false;
  d.init_deviation = 0.06;
  return d;
}

struct Model {
  explicit Model(const DecoderDescription& description = description_of_blocks())
      : decoder(*Decoder::create(description)),
        weights(static_cast<kernels::Index>(decoder.layout().elements())) {
    kernels::ThreadPool pool(1);
    decoder.initialise({&pool}, 42, weights.span());
  }
  Result<ServingWeights> in(std::string_view format) const {
    kernels::ThreadPool pool(2);
    return ServingWeights::from({&pool}, decoder, format, weights.span());
  }
  // Logits of all tokens, which come in chunks of so many.
  std::vector<float> logits(const ServingWeights& images, std::span<const std::int32_t> tokens,
                            std::size_t chunk, int threads) const {
    kernels::ThreadPool pool(threads);
    InferencePass pass(decoder, {.rows_max = 128, .samples_max = 1});
    KvCache cache(decoder.description(), 128);
    const std::size_t width = decoder.description().vocabulary;
    std::vector<float> all(tokens.size() * width);
    for (std::size_t at = 0; at < tokens.size(); at += chunk) {
      const auto part = tokens.subspan(at, std::min(chunk, tokens.size() - at));
      const SequenceChunk one{&cache, part, LogitRows::all};
      REQUIRE(pass.run({&pool}, images, {&one, 1},
                       std::span(all).subspan(at * width, part.size() * width)));
    }
    return all;
  }

  Decoder decoder;
  kernels::FloatBuffer weights;
};

double root_mean_square(std::span<const float> values) {
  double sum = 0.0;
  for (const float value : values) sum += static_cast<double>(value) * static_cast<double>(value);
  return std::sqrt(sum / static_cast<double>(values.size()));
}

std::ptrdiff_t best(std::span<const float> row) {
  return std::ranges::max_element(row) - row.begin();
}

// Fresh weights have no structure that would average a rounding out: it shows in full, a format's
// relative step times the root of the matrices on a token's way. A bit less doubles it. int8
// activations add their own step to the eight-bit formats.
double error_of(std::string_view format) {
  if (format == "auto" || format == "fp32") return 0.0;
  if (format == "bf16") return 0.01;
  if (format == "int8" || format == "q8_0") return 0.05;
  if (format == "q6_k" || format == "fp8_e4m3") return 0.1;
  if (format == "q5_0" || format == "q5_k" || format == "fp8_e5m2") return 0.2;
  return 0.4;
}

}  // namespace

TEST_CASE("serving weights: in every format a token has the same bits alone and in a prompt") {
  const auto& family = GENERATE(from_range(families().begin(), families().end()));
  INFO(family.name);
  const Model model(description_of_blocks(family.name));
  const Samples samples({40}, 101, 5);
  for (const std::string_view format : serving_formats()) {
    INFO(format);
    const auto images = model.in(format);
    REQUIRE(images);
    const auto whole = model.logits(*images, samples.tokens, 40, 1);
    for (const std::size_t chunk : {std::size_t{1}, std::size_t{3}, std::size_t{17}}) {
      const auto pieces = model.logits(*images, samples.tokens, chunk, 2);
      REQUIRE(std::memcmp(pieces.data(), whole.data(), whole.size() * sizeof(float)) == 0);
    }
  }
}

TEST_CASE("serving weights: fewer bits stay near fp32, and choose its token where it is sure") {
  const auto& family = GENERATE(from_range(families().begin(), families().end()));
  INFO(family.name);
  const Model model(description_of_blocks(family.name));
  const Samples samples({100}, 101, 6);
  const auto exact = model.logits(*model.in("fp32"), samples.tokens, 100, 1);
  const double size = root_mean_square(exact);
  for (const std::string_view format : serving_formats()) {
    INFO(format);
    const auto logits = model.logits(*model.in(format), samples.tokens, 100, 1);
    std::vector<float> difference(exact.size());
    std::ranges::transform(logits, exact, difference.begin(), std::minus<>());
    const double error = root_mean_square(difference) / size;
    UNSCOPED_INFO("error " << error);
    CHECK(error <= error_of(format));
    if (error_of(format) > 0.0) CHECK(error > 0.0);
    std::size_t sure = 0;
    for (std::size_t row = 0; row < samples.tokens.size(); ++row) {
      const auto expected = std::span(exact).subspan(row * 101, 101);
      const std::ptrdiff_t first = best(expected);
      std::vector<float> others(expected.begin(), expected.end());
      others[static_cast<std::size_t>(first)] = -1e30F;
      const float lead =
          expected[static_cast<std::size_t>(first)] - *std::ranges::max_element(others);
      // Two logits, each off by at most five deviations.
      if (static_cast<double>(lead) <= 10.0 * error_of(format) * size) continue;
      ++sure;
      CHECK(best(std::span(logits).subspan(row * 101, 101)) == first);
    }
    if (error_of(format) <= 0.05) CHECK(sure >= 5);
  }
}

TEST_CASE("serving weights: bf16 halves the memory, four bits take less than a fifth") {
  DecoderDescription description = description_of_blocks();
  description.vocabulary = 32;  // the table of embeddings is kept in bf16
  const Model model(description);
  const auto fp32 = static_cast<double>(model.in("fp32")->bytes());
  CHECK(static_cast<double>(model.in("bf16")->bytes()) < 0.51 * fp32);
  CHECK(static_cast<double>(model.in("int8")->bytes()) < 0.27 * fp32);
  CHECK(static_cast<double>(model.in("q4_k")->bytes()) < 0.2 * fp32);
}

TEST_CASE("serving weights: what a format cannot hold is refused with the tensor's name") {
  Model model;
  const auto unknown = model.in("int3");
  REQUIRE_FALSE(unknown);
  CHECK(unknown.error().message.find("q4_k") != std::string::npos);
  const Model narrow(small_description());
  CHECK(narrow.in("int8"));
  const auto odd = narrow.in("q4_k");
  REQUIRE_FALSE(odd);
  CHECK(odd.error().message.find("model.embed_tokens.weight") != std::string::npos);
  const Parameter& up = model.decoder.layout().at(Role::up, 1);
  model.weights.span()[up.offset + 7] = std::numeric_limits<float>::quiet_NaN();
  const auto broken = model.in("bf16");
  REQUIRE_FALSE(broken);
  CHECK(broken.error().message.find(up.name) != std::string::npos);
}

TEST_CASE("serving weights: a job may name each format, and no other") {
  std::string expected = "one of";
  for (const std::string_view name : serving_formats()) {
    expected += expected == "one of" ? " " : ", ";
    expected += name;
  }
  std::string takes;
  for (const spec::KeyHelp& key : spec::job_key_help()) {
    if (key.path == "serve.weights") takes = key.takes;
  }
  CHECK(takes == expected);
}

}  // namespace tutti::models
