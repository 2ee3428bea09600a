// Whole models on the GPU: training steps, a prompt, tokens.
#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <span>
#include <string>
#include <vector>

#include "jobs/models/families/family.h"
#include "jobs/models/inference_pass.h"
#include "jobs/models/layer.h"
#include "jobs/models/training_pass.h"
#include "kernels/ops/adamw.h"
#include "ops/bench/gpu/cases.h"

namespace tutti::bench::gpu {

namespace {

using kernels::FloatBuffer;
using kernels::Index;
using kernels::cuda::CudaDevice;

models::Decoder make_decoder(const models::DecoderDescription& description) {
  auto decoder = models::Decoder::create(description);
  models::must(decoder ? Result<>() : Result<>(decoder.error()));
  return *std::move(decoder);
}

struct Shape {
  const char* name;
  std::uint32_t layers, width, heads;
  std::uint32_t samples;
};

models::DecoderDescription describe(const Shape& shape, std::uint32_t length) {
  models::DecoderDescription description = models::find_family("gpt2")->parts();
  description.layers = shape.layers;
  description.width = shape.width;
  description.heads = description.kv_heads = shape.heads;
  description.head_dim = shape.width / shape.heads;
  description.feed_forward = 4 * shape.width;
  description.vocabulary = 50304;
  description.positions_max = length;
  description.tied = true;
  return description;
}

// The optimizer's state of one range of all parameters: the trainer's ranges are its parameters, of
// which there are some hundred.
struct Moments {
  Moments(Index count, CudaDevice& device)
      : first(count, &device),
        second(count, &device),
        hashes(4 * kernels::grid_blocks(count), &device) {}
  FloatBuffer first, second, hashes;
};

std::vector<Row> rows_of_shape(CudaDevice& device, const Shape& shape) {
  constexpr std::uint32_t kLength = 1024;
  const models::Decoder decoder = make_decoder(describe(shape, kLength));
  const models::ParameterLayout& layout = decoder.layout();
  const std::uint32_t tokens = shape.samples * kLength;
  models::TrainingPass pass(decoder, {.rows_max = tokens, .samples_max = shape.samples}, &device);
  FloatBuffer weights(static_cast<Index>(layout.elements()), &device);
  FloatBuffer gradients(static_cast<Index>(layout.gradient_elements()), &device);
  const Index count = std::min(weights.size(), gradients.size());
  const Moments moments(count, device);
  std::vector<std::int32_t> ids(tokens);
  for (std::uint32_t i = 0; i < tokens; ++i)
    ids[i] = static_cast<std::int32_t>(i * 7919U % decoder.description().vocabulary);
  std::vector<std::int32_t> offsets;
  for (std::uint32_t s = 0; s <= shape.samples; ++s)
    offsets.push_back(static_cast<std::int32_t>(s * kLength));
  std::vector<models::SampleLoss> losses(shape.samples);
  kernels::ThreadPool pool(1);
  const kernels::OpContext ctx{&pool, &device};
  const auto compute = [&] {
    models::must(pass.forward_backward(
        ctx, weights.span(), {.tokens = ids, .targets = ids, .positions = {}, .offsets = offsets},
        gradients.span(), losses));
  };
  const auto update = [&] {
    const auto range = static_cast<std::size_t>(count);
    models::must(device.enqueue(
        kernels::AdamWUpdate{.settings = {},
                             .weight = weights.span().first(range),
                             .gradient = gradients.span().first(range),
                             .first = moments.first.span(),
                             .second = moments.second.span(),
                             .hashes = {reinterpret_cast<kernels::Hash128*>(moments.hashes.data()),
                                        static_cast<std::size_t>(kernels::grid_blocks(count))}}));
  };
  const double by_weight = 6.0 * static_cast<double>(layout.parameter_count()) * tokens;
  const double by_attention =
      6.0 * shape.layers * static_cast<double>(tokens) * kLength * shape.width;
  const auto row = [&](const char* what, const std::function<void()>& body) {
    return row_of(fmt::format("{} {}, {} tokens", shape.name, what, tokens),
                  timed(device, 10, body), by_weight + by_attention, kBf16Peak,
                  "989 TFLOP/s (MFU)");
  };
  return {row("forward and backward", compute), row("step with AdamW", [&] {
            compute();
            update();
          })};
}

models::DecoderDescription eight_billion() {
  models::DecoderDescription description;
  description.family = "llama";
  description.layers = 32;
  description.width = 4096;
  description.heads = 32;
  description.kv_heads = 8;
  description.head_dim = 128;
  description.feed_forward = 14336;
  description.vocabulary = 128256;
  description.positions_max = 8192;
  description.tied = false;
  return description;
}

constexpr std::uint32_t kPrompt = 2048;
constexpr std::uint32_t kSequences = 8;
constexpr std::uint32_t kHeld = 1024;  // tokens of each sequence that is decoded

}  // namespace

std::vector<Row> training_rows(CudaDevice& device) {
  std::vector<Row> rows;
  for (const Shape& shape :
       {Shape{"GPT-2 124M", 12, 768, 12, 16}, Shape{"GPT-2 1.5B", 48, 1600, 25, 4}}) {
    for (Row& row : rows_of_shape(device, shape)) rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<Row> serving_rows(CudaDevice& device) {
  const models::Decoder decoder = make_decoder(eight_billion());
  const models::DecoderDescription& shape = decoder.description();
  const double bandwidth = copy_bandwidth(device);
  models::InferencePass pass(decoder, {.rows_max = kPrompt, .samples_max = kSequences}, &device);
  const FloatBuffer weights(static_cast<Index>(decoder.layout().elements()), &device);
  std::vector<models::KvCache> caches;
  for (std::uint32_t s = 0; s < kSequences; ++s) caches.emplace_back(shape, kPrompt, &device);
  const std::vector<std::int32_t> prompt(kPrompt, 17);
  std::vector<float> logits(kSequences * shape.vocabulary);
  kernels::ThreadPool pool(1);
  const kernels::OpContext ctx{&pool, &device};
  const auto run = [&](std::span<const models::SequenceChunk> chunks) {
    models::must(pass.run(ctx, weights.span(), chunks,
                          std::span(logits).first(chunks.size() * shape.vocabulary)));
  };

  const auto prompt_seconds = timed(device, 10, [&] {
    caches[0].truncate(0);
    const models::SequenceChunk chunk{&caches[0], prompt};
    run(std::span(&chunk, 1));
  });
  const double table = static_cast<double>(shape.vocabulary) * shape.width;
  const double in_layers = static_cast<double>(decoder.layout().parameter_count()) - 2.0 * table;
  const double seen_pairs = 0.5 * kPrompt * kPrompt;
  const double operations = 2.0 * in_layers * kPrompt + 2.0 * table +
                            4.0 * seen_pairs * shape.layers * shape.heads * shape.head_dim;

  std::vector<models::SequenceChunk> chunks;
  for (models::KvCache& cache : caches) {
    cache.truncate(0);
    const models::SequenceChunk chunk{&cache, std::span(prompt).first(kHeld)};
    run(std::span(&chunk, 1));
    chunks.push_back({&cache, std::span(prompt).first(1)});
  }
  const auto token_seconds = timed(device, 50, [&] {
    for (models::KvCache& cache : caches) cache.truncate(kHeld);
    run(chunks);
  });
  const double keys = 2.0 * kSequences * kHeld * shape.layers * shape.kv_heads * shape.head_dim;
  const double bytes = 2.0 * (in_layers + table) + keys * sizeof(float);
  return {row_of(fmt::format("prefill, 8B shape, {} tokens", kPrompt), prompt_seconds, operations,
                 kBf16Peak, "989 TFLOP/s"),
          row_of(fmt::format("decode, 8B shape, {} sequences at {}", kSequences, kHeld),
                 token_seconds, bytes, bandwidth, "copy bandwidth")};
}

}  // namespace tutti::bench::gpu
