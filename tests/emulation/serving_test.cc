// Serving on a GPU, the emulated one or a real one (ops/gpu/check): weights in every format, tokens
// and log-probabilities chosen on the device, decoding steps as captured graphs. Against the same
// engine on the CPU.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>

#include "jobs/serving/engine.h"
#include "jobs/serving/scorer.h"
#include "kernels/cuda/device.h"
#include "kernels/ops/attention.h"
#include "tests/support/tiny_decoder.h"

namespace tutti::serving {
namespace {

using kernels::cuda::CudaDevice;
using kernels::cuda::DeviceOptions;

models::DecoderDescription small_model(bool tied, std::string_view family) {
  models::DecoderDescription d = test::tiny_decoder(family);
  d.layers = 1;
  d.width = 256;
  d.head_dim = 64;
  d.feed_forward = 256;
  d.vocabulary = 90;
  d.positions_max = 128;
  d.tied = tied;
  d.init_deviation = 0.15;
  return d;
}

std::unique_ptr<CudaDevice> open(DeviceOptions::Graphs graphs = DeviceOptions::Graphs::on) {
  auto opened = CudaDevice::open({.graphs = graphs});
  REQUIRE(opened);
  return *std::move(opened);
}

struct Model {
  explicit Model(bool tied = false, std::string_view family = "llama")
      : Model(small_model(tied, family)) {}
  explicit Model(const models::DecoderDescription& description)
      : decoder(*models::Decoder::create(description)) {
    weights = kernels::FloatBuffer(static_cast<kernels::Index>(decoder.layout().elements()));
    decoder.initialise({&pool}, 5, weights.span());
  }
  models::ServingWeights in(std::string_view format, kernels::Device* on) {
    auto made = models::ServingWeights::from({&pool, on}, decoder, format, weights.span());
    REQUIRE(made);
    return *std::move(made);
  }

  kernels::ThreadPool pool{1};
  models::Decoder decoder;
  kernels::FloatBuffer weights;
};

Request request_of(std::uint64_t id, double temperature, std::uint32_t tokens_max) {
  Request request;
  request.id = id;
  request.tokens = {static_cast<std::uint32_t>(3 + id), 17, static_cast<std::uint32_t>(40 - id)};
  request.tokens_max = tokens_max;
  request.temperature = temperature;
  request.seed = 11 + id;
  request.logprobs = true;
  request.ignores_end = true;
  return request;
}

struct Answer {
  std::vector<std::uint32_t> tokens;
  std::vector<float> logprobs;
};

// The answers by request; all of them are submitted at once.
std::vector<Answer> answers_of(Model& model, kernels::Device* on, std::string_view format,
                               const std::vector<Request>& requests) {
  const models::ServingWeights images = model.in(format, on);
  Engine engine({.decoder = &model.decoder, .images = &images}, {&model.pool, on},
                {.batch_max = 4});
  for (const Request& request : requests) REQUIRE(engine.submit(request));
  std::vector<Answer> answers(requests.size());
  while (!engine.idle()) {
    for (const Output& output : engine.step()) {
      if (output.error) FAIL(output.error->message);
      Answer& answer = answers[output.id];
      answer.tokens.insert(answer.tokens.end(), output.tokens.begin(), output.tokens.end());
      for (const TokenChoice& choice : output.chosen) answer.logprobs.push_back(choice.logprob);
    }
  }
  return answers;
}

}  // namespace

namespace {

// Norms and attention have bits of their own: an activation may round to the next code.
constexpr double kLogprob = 0.1;
// So where the CPU gives two tokens nearly the same, a GPU may take the other one. What follows is
// another text.
constexpr double kTie = 2.0 * kLogprob;

// What the CPU says of the last of these tokens, behind all others.
double logprob_on_cpu(Model& model, std::string_view format, std::vector<std::uint32_t> tokens) {
  const std::vector<std::int32_t> text(tokens.begin(), tokens.end());
  const models::ServingWeights images = model.in(format, nullptr);
  const auto scored =
      score_tokens({.decoder = &model.decoder, .images = &images}, {&model.pool}, text, 0);
  REQUIRE(scored);
  return static_cast<double>(scored->back());
}

// The same tokens, but for ties. The emulation's products have the CPU's bits: it has none.
void check_near(Model& model, std::string_view format, const Request& request, const Answer& here,
                const Answer& on_cpu) {
  REQUIRE(here.tokens.size() == request.tokens_max);
  REQUIRE(here.logprobs.size() == request.tokens_max);
  const auto parted = std::ranges::mismatch(here.tokens, on_cpu.tokens).in1;
  const auto same = static_cast<std::size_t>(parted - here.tokens.begin());
  for (std::size_t t = 0; t < same; ++t)
    CHECK(here.logprobs[t] == Approx(on_cpu.logprobs[t]).margin(kLogprob));
  if (parted == here.tokens.end()) return;
#ifdef TUTTI_CUDA_EMULATION
  CHECK(here.tokens == on_cpu.tokens);
#endif
  CHECK(format != "fp32");
  if (request.temperature > 0.0) return;  // a draw between two tokens says nothing of their sizes
  std::vector<std::uint32_t> text = request.tokens;
  text.insert(text.end(), here.tokens.begin(), parted + 1);
  const auto best = static_cast<double>(on_cpu.logprobs[same]);
  CHECK(best - logprob_on_cpu(model, format, text) <= kTie);
}

}  // namespace

TEST_CASE("serving: in every format of weights a GPU serves the CPU's tokens, drawn or greedy") {
  const char* const family = GENERATE("llama", "gpt2");
  Model model(false, family);
  const auto device = open();
  const std::vector<Request> requests{request_of(0, 0.0, 3), request_of(1, 0.9, 3)};
  for (const std::string_view format : models::serving_formats()) {
    INFO(family << ", " << format);
    const auto here = answers_of(model, device.get(), format, requests);
    const auto on_cpu = answers_of(model, nullptr, format, requests);
    for (std::size_t i = 0; i < requests.size(); ++i) {
      check_near(model, format, requests[i], here[i], on_cpu[i]);
    }
  }
}

TEST_CASE("serving: what weights take of a device is known from their shapes") {
  const char* const family = GENERATE("llama", "gpt2");
  for (const bool tied : {false, true}) {
    Model model(tied, family);
    const auto device = open();
    for (const std::string_view format : models::serving_formats()) {
      INFO(family << ", " << format << (tied ? ", tied" : ""));
      [[maybe_unused]] const auto before = *device->free_bytes();
      const auto images = model.in(format, device.get());
      const auto expected = models::ServingWeights::device_bytes(model.decoder, format);
      REQUIRE(expected);
      CHECK(images.bytes() == *expected);
#ifdef TUTTI_CUDA_EMULATION  // others give whole pages
      CHECK(before - *device->free_bytes() == *expected);
#endif
    }
    CHECK_FALSE(models::ServingWeights::device_bytes(model.decoder, "int3"));
  }
}

TEST_CASE("serving: echoed prompts and scored texts have the CPU's log-probabilities") {
  Model model;
  const auto device = open();
  Request echo = request_of(0, 0.0, 1);
  echo.echo = true;
  const auto here = answers_of(model, device.get(), "q8_0", {echo});
  const auto on_cpu = answers_of(model, nullptr, "q8_0", {echo});
  REQUIRE(here[0].logprobs.size() == 4);
  for (std::size_t t = 0; t < 4; ++t) {
    CHECK(here[0].logprobs[t] == Approx(on_cpu[0].logprobs[t]).margin(kLogprob));
  }
  const std::vector<std::int32_t> text{5, 8, 13, 21, 34, 55, 89, 1, 2, 3};
  const auto scores = [&](kernels::Device* on) {
    const models::ServingWeights images = model.in("fp32", on);
    auto scored =
        score_tokens({.decoder = &model.decoder, .images = &images}, {&model.pool, on}, text, 0);
    REQUIRE(scored);
    return *scored;
  };
  const auto there = scores(nullptr);
  const auto scored = scores(device.get());
  REQUIRE(scored.size() == 9);
  for (std::size_t i = 0; i < 9; ++i) CHECK(scored[i] == Approx(there[i]).margin(1e-4));
}

TEST_CASE("serving: decoding steps are captured once a bucket of shapes, and change no token") {
  const char* const family = GENERATE("llama", "gpt2");
  INFO(family);
  Model model(false, family);
  const std::vector<Request> requests{request_of(0, 0.8, 12), request_of(1, 0.0, 12),
                                      request_of(2, 1.1, 5)};
  const auto captured = open();
  const auto plain = open(DeviceOptions::Graphs::off);
  const auto with = answers_of(model, captured.get(), "q8_0", requests);
  const auto without = answers_of(model, plain.get(), "q8_0", requests);
  const auto on_cpu = answers_of(model, nullptr, "q8_0", requests);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    CHECK(with[i].tokens == without[i].tokens);
    CHECK(with[i].logprobs == without[i].logprobs);
    check_near(model, "q8_0", requests[i], with[i], on_cpu[i]);
  }
  // Four decoding steps of three requests, then seven of two: the first of each bucket is plain,
  // the second captured and launched, the others launch what was captured.
  const auto& counts = captured->graph_counts();
  CHECK(counts.plain == 2);
  CHECK(counts.captured == 2);
  CHECK(counts.replayed == 7);
  CHECK(plain->graph_counts().captured == 0);
}

TEST_CASE("serving: a captured step is launched again after batches that were larger") {
  Model model;
  const auto device = open();
  const models::ServingWeights images = model.in("q8_0", device.get());
  Engine engine({.decoder = &model.decoder, .images = &images}, {&model.pool, device.get()},
                {.batch_max = 4});
  const auto steps = [&](int count) {
    for (int i = 0; i < count; ++i) REQUIRE_FALSE(engine.step().empty());
  };
  // A prompt, then four steps of one request: plain, captured, replayed twice.
  REQUIRE(engine.submit(request_of(0, 0.0, 24)));
  steps(5);
  const auto& counts = device->graph_counts();
  CHECK(counts.plain == 1);
  CHECK(counts.replayed == 2);
  // Another comes and goes; the first then decodes on by the graph that it had.
  REQUIRE(engine.submit(request_of(1, 0.0, 4)));
  while (!engine.idle()) static_cast<void>(engine.step());
  CHECK(counts.plain == 2);
  CHECK(counts.captured == 2);
}

TEST_CASE("serving: a server that was warmed up makes no graph for its first requests") {
  Model model;
  const std::vector<Request> requests{request_of(0, 0.8, 6), request_of(1, 0.0, 6),
                                      request_of(2, 1.1, 3)};
  const auto cold = open();
  const auto expected = answers_of(model, cold.get(), "q8_0", requests);
  const auto device = open();
  const models::ServingWeights images = model.in("q8_0", device.get());
  Engine engine({.decoder = &model.decoder, .images = &images}, {&model.pool, device.get()},
                {.batch_max = 3});
  REQUIRE(engine.warm_up());
  const auto& counts = device->graph_counts();
  CHECK(counts.plain == 3);  // one to three sequences
  CHECK(counts.captured == 3);
  CHECK(engine.status().steps == 0);
  CHECK(engine.status().prompt_tokens == 0);
  std::vector<Answer> answers(requests.size());
  for (const Request& request : requests) REQUIRE(engine.submit(request));
  while (!engine.idle()) {
    for (const Output& output : engine.step()) {
      std::vector<std::uint32_t>& tokens = answers[output.id].tokens;
      tokens.insert(tokens.end(), output.tokens.begin(), output.tokens.end());
    }
  }
  for (std::size_t i = 0; i < requests.size(); ++i) CHECK(answers[i].tokens == expected[i].tokens);
  CHECK(counts.plain == 3);
  CHECK(counts.captured == 3);
  CHECK(counts.replayed > 0);
}

TEST_CASE("serving: a server that was warmed up makes no graph for long sequences, either") {
  models::DecoderDescription description = small_model(false, "llama");
  description.positions_max = 3000;  // three chunks of keys; tables of angles grow beyond 1,024
  Model model(description);
  const auto device = open();
  const models::ServingWeights images = model.in("q8_0", device.get());
  Engine engine({.decoder = &model.decoder, .images = &images}, {&model.pool, device.get()},
                {.batch_max = 2});
  REQUIRE(engine.warm_up());
  const auto& counts = device->graph_counts();
  CHECK(counts.plain == 2);
  CHECK(counts.captured == 2);
  const auto replayed = counts.replayed;
  // Two on their second page of keys, then one in its second chunk beside a short one.
  std::uint64_t id = 0;
  for (const auto& [first, second] : {std::pair{70, 70}, {1030, 3}}) {
    for (const int length : {first, second}) {
      Request request = request_of(id++, 0.0, 4);
      request.tokens.resize(static_cast<std::size_t>(length), 7);
      REQUIRE(engine.submit(request));
    }
    while (!engine.idle()) {
      for (const Output& output : engine.step()) CHECK_FALSE(output.error);
    }
  }
  CHECK(counts.plain == 2);
  CHECK(counts.captured == 2);
  CHECK(counts.replayed > replayed);
}

}  // namespace tutti::serving
