// A small decoder with fresh weights and a tokenizer of its vocabulary, for tests.
#pragma once

#include <catch2/catch.hpp>

#include <string_view>

#include "jobs/serving/model_folder.h"
#include "jobs/tokenizers/trainer.h"
#include "kernels/tensor/thread_pool.h"

namespace tutti::serving {

inline constexpr std::uint32_t kTinyVocabulary = 288;
inline constexpr std::uint32_t kTinyContext = 200;

inline models::DecoderDescription tiny_description() {
  models::DecoderDescription description;
  description.family = "llama";
  description.layers = 2;
  description.width = 64;
  description.heads = 4;
  description.kv_heads = 2;
  description.head_dim = 16;
  description.feed_forward = 96;
  description.vocabulary = kTinyVocabulary;
  description.positions_max = kTinyContext;
  description.tied = true;
  description.init_deviation = 0.3;  // so that fresh weights prefer some tokens clearly
  return description;
}

inline kernels::FloatBuffer tiny_weights(const models::Decoder& decoder) {
  kernels::FloatBuffer weights(static_cast<kernels::Index>(decoder.layout().elements()));
  kernels::ThreadPool pool(1);
  decoder.initialise({&pool}, 7, weights.span());
  return weights;
}

inline ServedModel tiny_model() {
  auto decoder = models::Decoder::create(tiny_description());
  if (!decoder) FAIL(decoder.error().message);
  kernels::ThreadPool pool(1);
  auto images =
      models::ServingWeights::from({&pool}, *decoder, "fp32", tiny_weights(*decoder).span());
  REQUIRE(images);
  const std::string_view text =
      "In the beginning God created the heaven and the earth. And the earth was without form, and "
      "void; and darkness was upon the face of the deep.";
  tokenizers::TrainerOptions options;
  options.vocabulary = kTinyVocabulary;
  auto tokenizer = tokenizers::train_tokenizer({&text, 1}, options);
  REQUIRE(tokenizer);
  return {.decoder = *std::move(decoder),
          .images = *std::move(images),
          .tokenizer = std::move(*tokenizer),
          .end_tokens = {}};
}

}  // namespace tutti::serving
