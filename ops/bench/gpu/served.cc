// A decoder of the 8B shape as a server runs it: images of weights in bf16, 8 and 4 bits, tokens
// chosen on the card, decoding steps as captured graphs and without them.
#include <fmt/core.h>

#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "jobs/models/inference_pass.h"
#include "jobs/models/layer.h"
#include "jobs/models/serving_weights.h"
#include "kernels/ops/key_value_pages.h"
#include "kernels/tensor/thread_pool.h"
#include "ops/bench/gpu/cases.h"

namespace tutti::bench::gpu {

namespace {

using kernels::cuda::CudaDevice;

constexpr std::uint32_t kPrompt = 2048;
constexpr std::uint32_t kSequences = 8;
constexpr std::uint32_t kHeld = 1024;  // tokens of each sequence that is decoded
constexpr unsigned kThreadsMax = 16;   // that make the images

std::uint32_t prompt_tokens() { return sized(kPrompt, 24U); }
std::uint32_t sequences() { return sized(kSequences, 2U); }
std::uint32_t held() { return sized(kHeld, 12U); }
std::uint64_t pages() {
  return sequences() * static_cast<std::uint64_t>(kernels::kv_pages_for(prompt_tokens()));
}

models::Decoder eight_billion() {
  models::DecoderDescription description;
  description.family = "llama";
  description.layers = sized(32U, 1U);
  description.width = sized(4096U, 256U);
  description.heads = sized(32U, 4U);
  description.kv_heads = sized(8U, 2U);
  description.head_dim = sized(128U, 64U);
  description.feed_forward = sized(14336U, 256U);
  description.vocabulary = sized(128256U, 300U);
  description.positions_max = 8192;
  description.tied = false;
  auto decoder = models::Decoder::create(description);
  models::must(decoder ? Result<>() : Result<>(decoder.error()));
  return *std::move(decoder);
}

// The images of one format; what its values are does not matter for the time.
struct Served {
  Served(const Card& card, std::string_view format)
      : pool(static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1U, kThreadsMax))) {
    const auto fill = [](const models::Parameter&, std::span<float> values) -> Result<> {
      if (values[0] != 0.0F) return {};  // the room is the same for all parameters
      for (std::size_t i = 0; i < values.size(); ++i) {
        values[i] = static_cast<float>(i % 251 + 1) * 1e-4F - 0.0125F;
      }
      return {};
    };
    auto made = models::ServingWeights::make({&pool, &card.serving()}, decoder, format, fill);
    models::must(made ? Result<>() : Result<>(made.error()));
    images = std::make_unique<models::ServingWeights>(*std::move(made));
    models::must(card.serving().synchronize());
  }

  const models::Decoder decoder = eight_billion();
  kernels::ThreadPool pool;
  std::unique_ptr<models::ServingWeights> images;
};

class Steps {
 public:
  Steps(Served& served, CudaDevice& device)
      : served_(served),
        ctx_{&served.pool, &device},
        pass_(served.decoder, {.rows_max = prompt_tokens(), .samples_max = sequences()}, &device,
              {.tokens_max = prompt_tokens(), .pages_max = pages()}),
        prompt_(prompt_tokens(), 17) {
    for (std::uint32_t s = 0; s < sequences(); ++s) {
      caches_.emplace_back(served.decoder.description(), prompt_tokens(), &device);
    }
  }

  void prompt() {
    caches_[0].truncate(0);
    run({{caches_.data(), std::span(prompt_)}});
  }
  void decode() {
    std::vector<models::SequenceChunk> chunks;
    for (models::KvCache& cache : caches_) {
      cache.pretend(held());  // what they hold, zeros, is read like any numbers
      chunks.push_back({&cache, std::span(prompt_).first(1)});
    }
    run(chunks);
  }

 private:
  void run(const std::vector<models::SequenceChunk>& chunks) {
    const std::vector<kernels::TokenDraw> draws(chunks.size());
    std::vector<kernels::ChosenToken> chosen(chunks.size());
    models::must(pass_.choose(ctx_, *served_.images, chunks, draws, chosen));
  }

  Served& served_;
  const kernels::OpContext ctx_;
  models::InferencePass pass_;
  const std::vector<std::int32_t> prompt_;
  std::vector<models::KvCache> caches_;
};

double in_layers(const models::Decoder& decoder) {
  const auto& shape = decoder.description();
  return static_cast<double>(decoder.layout().parameter_count()) -
         2.0 * static_cast<double>(shape.vocabulary) * shape.width;
}

Measured prefill(Served& served, const Card& card) {
  Steps steps(served, card.serving());
  const auto& shape = served.decoder.description();
  const double head = static_cast<double>(shape.vocabulary) * shape.width;
  const double pairs = 0.5 * prompt_tokens() * prompt_tokens();
  return of_peak(timed(card.serving(), 1, [&] { steps.prompt(); }),
                 2.0 * in_layers(served.decoder) * prompt_tokens() + 2.0 * head +
                     4.0 * pairs * shape.layers * shape.heads * shape.head_dim);
}

Measured decode(Served& served, const Card& card, CudaDevice& device) {
  Steps steps(served, device);
  const auto& shape = served.decoder.description();
  // All that lies on the card but the table of embeddings, of which eight rows are read.
  const double table = 2.0 * static_cast<double>(shape.vocabulary) * shape.width;
  const double keys = 2.0 * sequences() * (held() + 1.0) * shape.layers * shape.kv_heads *
                      shape.head_dim * sizeof(float);
  return of_bandwidth(card, timed(device, 50, [&] { steps.decode(); }),
                      static_cast<double>(served.images->bytes()) - table + keys);
}

// One format's cases share its images: the first makes them, the last gives them back.
void add_format(std::vector<Case>& cases, const std::string& format) {
  const auto served = std::make_shared<std::unique_ptr<Served>>();
  const auto name = [&](const char* how) {
    return fmt::format("decode, 8B shape, {} sequences at {}, {}, {}", kSequences, kHeld, format,
                       how);
  };
  cases.push_back({name("graphs"), [=](const Card& card) {
                     *served = std::make_unique<Served>(card, format);
                     return decode(**served, card, card.serving());
                   }});
  if (format == "bf16") {
    cases.push_back({fmt::format("prefill, 8B shape, {} tokens, {}", kPrompt, format),
                     [=](const Card& card) { return prefill(**served, card); }});
  }
  cases.push_back({name("no graphs"), [=](const Card& card) {
                     Measured out = decode(**served, card, card.without_graphs());
                     served->reset();
                     return out;
                   }});
}

}  // namespace

std::vector<Case> serving_cases() {
  std::vector<Case> cases;
  for (const char* const format : {"bf16", "q8_0", "q4_k"}) add_format(cases, format);
  return cases;
}

}  // namespace tutti::bench::gpu
