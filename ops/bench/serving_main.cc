// The engine's side of ops/bench/serving: makes a model with fresh weights, then does what a line
// on standard input asks, and answers with the seconds that it took.
//
//   bench_serving FOLDER LAYERS WIDTH VOCABULARY THREADS FORMAT     lines: BATCH PROMPT TOKENS
//   answer: seconds to the first token of all, seconds from there to the last, tokens drawn there
#include <fmt/core.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <sstream>
#include <string>

#include "jobs/serving/model_folder.h"
#include "kernels/tensor/thread_pool.h"

namespace {

using tutti::serving::Engine;

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

int fail(const std::string& message) {
  fmt::print(stderr, "bench_serving: {}\n", message);
  return 2;
}

// A Llama of the usual proportions: heads of 64, or 32 where it is narrow.
tutti::models::DecoderDescription shape_of(std::uint32_t layers, std::uint32_t width,
                                           std::uint32_t vocabulary) {
  tutti::models::DecoderDescription shape;
  shape.family = "llama";
  shape.layers = layers;
  shape.width = width;
  shape.head_dim = width >= 512 ? 64 : 32;
  shape.heads = width / shape.head_dim;
  shape.kv_heads = shape.heads;
  shape.feed_forward = (width * 8 / 3 + 63) / 64 * 64;
  shape.vocabulary = vocabulary;
  shape.positions_max = 2048;
  shape.tied = true;
  return shape;
}

struct Load {
  std::uint32_t batch = 1;
  std::uint32_t prompt = 1;
  std::uint32_t tokens = 2;
};

void run(Engine& engine, const Load& load, std::uint32_t round) {
  for (std::uint32_t i = 0; i < load.batch; ++i) {
    tutti::serving::Request request;
    request.id = i + 1;
    request.tokens_max = load.tokens;
    request.temperature = 0;
    request.ignores_end = true;
    // No two prompts begin alike, so that nothing is found in kept caches.
    for (std::uint32_t k = 0; k < load.prompt; ++k) {
      request.tokens.push_back((round * 131 + i * 31 + k * 7919) % 2000);
    }
    if (const auto submitted = engine.submit(std::move(request)); !submitted) {
      std::exit(fail(submitted.error().message));
    }
  }
  const double begin = now_seconds();
  double first = 0;
  std::uint64_t before = 0;
  std::uint64_t drawn = 0;
  while (!engine.idle()) {
    for (const auto& output : engine.step()) drawn += output.tokens.size();
    if (first == 0 && drawn >= load.batch) {
      first = now_seconds() - begin;
      before = drawn;
    }
  }
  fmt::print("{:.9f} {:.9f} {}\n", first, now_seconds() - begin - first, drawn - before);
  std::fflush(stdout);
}

}  // namespace

int main(int count, char** values) {
  if (count != 7) return fail("usage: bench_serving FOLDER LAYERS WIDTH VOCABULARY THREADS FORMAT");
  std::array<std::uint32_t, 4> numbers{};
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    numbers[i] = static_cast<std::uint32_t>(std::strtoul(values[i + 2], nullptr, 10));
  }
  const auto decoder = tutti::models::Decoder::create(shape_of(numbers[0], numbers[1], numbers[2]));
  if (!decoder) return fail(decoder.error().message);
  tutti::kernels::ThreadPool pool(static_cast<int>(numbers[3]));
  tutti::kernels::FloatBuffer weights(
      static_cast<tutti::kernels::Index>(decoder->layout().elements()));
  decoder->initialise({&pool}, 1, weights.span());
  std::filesystem::create_directories(values[1]);
  if (const auto saved = tutti::models::save_model(*decoder, weights.span(), values[1]); !saved) {
    return fail(saved.error().message);
  }
  const auto images =
      tutti::models::ServingWeights::from({&pool}, *decoder, values[6], weights.span());
  if (!images) return fail(images.error().message);
  Engine engine({.decoder = &*decoder, .images = &*images}, {&pool}, {.batch_max = 64});
  fmt::print("ready\n");
  std::fflush(stdout);
  std::string line;
  for (std::uint32_t round = 0; std::getline(std::cin, line); ++round) {
    Load load;
    std::istringstream(line) >> load.batch >> load.prompt >> load.tokens;
    run(engine, load, round);
  }
}
