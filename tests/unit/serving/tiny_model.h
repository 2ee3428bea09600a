// A small decoder with fresh weights and a tokenizer of its vocabulary, for tests.
#pragma once

#include <catch2/catch.hpp>

#include <string_view>

#include "jobs/serving/model_folder.h"
#include "jobs/tokenizers/trainer.h"
#include "kernels/tensor/thread_pool.h"
#include "tests/support/tiny_decoder.h"

namespace tutti::serving {

inline constexpr std::uint32_t kTinyVocabulary = 288;
inline constexpr std::uint32_t kTinyContext = 200;

inline models::DecoderDescription tiny_description() {
  models::DecoderDescription description = test::tiny_decoder();
  description.vocabulary = kTinyVocabulary;
  description.positions_max = kTinyContext;
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
