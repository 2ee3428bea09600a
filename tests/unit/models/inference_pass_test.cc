#include "jobs/models/inference_pass.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <optional>

#include "kernels/ops/cross_entropy.h"
#include "tests/unit/models/small_model.h"

namespace tutti::models {
namespace {

using test::Samples;
using test::small_description;

class Server {
 public:
  explicit Server(int threads = 1, std::string_view family = "llama")
      : pool_(threads),
        decoder_(*Decoder::create(small_description(family))),
        weights_(static_cast<kernels::Index>(decoder_.layout().elements())),
        pass_(decoder_, {.rows_max = 200, .samples_max = 4}) {
    decoder_.initialise(ctx(), 42, weights_.span());
  }

  kernels::OpContext ctx() { return {&pool_}; }
  const Decoder& decoder() const { return decoder_; }
  std::span<const float> weights() { return weights_.span(); }
  // From now on by images of the weights.
  void pack() {
    auto images = ServingWeights::from(ctx(), decoder_, "fp32", weights());
    REQUIRE(images);
    images_.emplace(*std::move(images));
  }
  std::size_t vocabulary() const { return decoder_.description().vocabulary; }
  KvCache cache(std::uint32_t capacity) const { return {decoder_.description(), capacity}; }

  std::vector<float> run(std::vector<SequenceChunk> chunks, std::size_t rows) {
    std::vector<float> logits(rows * vocabulary());
    REQUIRE((images_ ? pass_.run(ctx(), *images_, chunks, logits)
                     : pass_.run(ctx(), weights(), chunks, logits)));
    return logits;
  }
  Result<> try_run(std::vector<SequenceChunk> chunks, std::span<float> logits) {
    return pass_.run(ctx(), weights(), chunks, logits);
  }

 private:
  kernels::ThreadPool pool_;
  Decoder decoder_;
  kernels::FloatBuffer weights_;
  InferencePass pass_;
  std::optional<ServingWeights> images_;
};

bool same(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

}  // namespace

TEST_CASE("inference pass: chunks, single tokens and threads give the bits of one prefill") {
  const auto& family = GENERATE(from_range(families().begin(), families().end()));
  INFO(family.name);
  Server server(1, family.name);
  const Samples samples({150}, 101, 5);
  const std::span<const std::int32_t> prompt = samples.tokens;
  KvCache whole_cache = server.cache(150);
  const auto whole = server.run({{&whole_cache, prompt, LogitRows::all}}, prompt.size());
  for (const std::vector<std::size_t>& cuts :
       {std::vector<std::size_t>{1, 64, 70}, {63, 65, 128}, {149}, {5, 6, 7, 8, 9, 10}}) {
    Server other(2, family.name);
    KvCache cache = other.cache(200);
    std::vector<float> logits;
    std::size_t from = 0;
    for (std::size_t piece = 0; piece <= cuts.size(); ++piece) {
      const std::size_t to = piece < cuts.size() ? cuts[piece] : prompt.size();
      const auto part =
          other.run({{&cache, prompt.subspan(from, to - from), LogitRows::all}}, to - from);
      logits.insert(logits.end(), part.begin(), part.end());
      from = to;
    }
    CHECK(same(logits, whole));
  }
  // The last 20 tokens again, one at a time, over what the cache still holds, by packed weights.
  server.pack();
  whole_cache.truncate(130);
  for (std::size_t at = 130; at < prompt.size(); ++at) {
    const auto logits = server.run({{&whole_cache, prompt.subspan(at, 1), LogitRows::last}}, 1);
    CHECK(same(logits, std::span(whole).subspan(at * server.vocabulary(), server.vocabulary())));
  }
}

TEST_CASE("inference pass: a sequence's logits do not depend on its neighbours") {
  Server server;
  const Samples samples({90, 40, 3}, 101, 6);
  const std::span<const std::int32_t> tokens = samples.tokens;
  const auto a = tokens.first(90);
  const auto b = tokens.subspan(90, 40);
  const auto c = tokens.subspan(130, 3);
  std::vector<float> alone;
  for (const auto& sequence : {a, b, c}) {
    KvCache cache = server.cache(128);
    const auto logits = server.run({{&cache, sequence, LogitRows::last}}, 1);
    alone.insert(alone.end(), logits.begin(), logits.end());
  }
  KvCache cache_a = server.cache(128);
  KvCache cache_b = server.cache(128);
  KvCache cache_c = server.cache(128);
  // Two prompts begin, one without asking for logits; then one goes on, one decodes and one is new.
  server.run({{&cache_b, b.first(39), LogitRows::none}, {&cache_a, a.first(30), LogitRows::last}},
             1);
  const auto together = server.run({{&cache_a, a.subspan(30), LogitRows::last},
                                    {&cache_b, b.subspan(39), LogitRows::last},
                                    {&cache_c, c, LogitRows::last}},
                                   3);
  CHECK(same(together, alone));
}

TEST_CASE("inference pass: log-probabilities are those of training, bit for bit") {
  const auto& family = GENERATE(from_range(families().begin(), families().end()));
  const bool packed = GENERATE(false, true);
  INFO(family.name);
  Server server(2, family.name);
  if (packed) server.pack();
  const Samples samples({100, 64, 7}, 101, 8);
  std::vector<float> losses(samples.tokens.size());
  TrainingPass training(server.decoder(), {.rows_max = 171, .samples_max = 3});
  REQUIRE(training.token_losses(server.ctx(), server.weights(), samples.batch(), losses));
  for (std::size_t sample = 0; sample < samples.count(); ++sample) {
    const auto first = static_cast<std::size_t>(samples.offsets[sample]);
    const auto rows = static_cast<std::size_t>(samples.offsets[sample + 1]) - first;
    KvCache cache = server.cache(128);
    auto logits = server.run(
        {{&cache, std::span(samples.tokens).subspan(first, rows), LogitRows::all}}, rows);
    const kernels::Matrix matrix(logits.data(), static_cast<kernels::Index>(rows), 101);
    REQUIRE(kernels::log_softmax(server.ctx(), matrix, matrix));
    for (std::size_t row = 0; row < rows; ++row) {
      const std::int32_t target = samples.targets[first + row];
      if (target < 0) {
        CHECK(losses[first + row] == 0.0F);
      } else {
        CHECK(-matrix.row(static_cast<kernels::Index>(row))[target] == losses[first + row]);
      }
    }
  }
}

TEST_CASE("inference pass: wrong batches are refused and the caches stay as they are") {
  Server server;
  const Samples samples({10}, 101, 9);
  const std::span<const std::int32_t> tokens = samples.tokens;
  KvCache cache = server.cache(8);
  KvCache other = server.cache(300);
  std::vector<float> logits(server.vocabulary());
  const auto code = [&](std::vector<SequenceChunk> chunks) {
    const auto result = server.try_run(std::move(chunks), logits);
    REQUIRE_FALSE(result);
    return result.error().code;
  };
  server.run({{&cache, tokens.first(4), LogitRows::last}}, 1);
  CHECK(code({{&cache, tokens.first(5), LogitRows::last}}) == ErrorCode::exhausted);
  CHECK(code({{&cache, tokens.first(1), LogitRows::none}}) == ErrorCode::invalid_argument);
  CHECK(code({{&cache, tokens.first(0), LogitRows::last}}) == ErrorCode::invalid_argument);
  CHECK(code({{nullptr, tokens.first(1), LogitRows::last}}) == ErrorCode::invalid_argument);
  CHECK(code({{&cache, tokens.first(1), LogitRows::last},
              {&cache, tokens.first(1), LogitRows::none}}) == ErrorCode::invalid_argument);
  const std::vector<std::int32_t> outside = {3, -1};
  CHECK(code({{&cache, outside, LogitRows::last}}) == ErrorCode::invalid_argument);
  const std::vector<std::int32_t> many(201, 1);
  CHECK(code({{&other, many, LogitRows::last}}) == ErrorCode::invalid_argument);
  CHECK(code({}) == ErrorCode::invalid_argument);
  CHECK(cache.length() == 4);
  CHECK(other.length() == 0);
}

}  // namespace tutti::models
