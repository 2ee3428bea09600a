// A model directory ready to be served: weights in memory, and its tokenizer if it has one.
//
// Chat models name more end tokens in generation_config.json than in config.json.
// A tokenizer may have ids that the model lacks; a prompt that uses one is refused by itself.
//
// Errors: those of load_decoder, ServingWeights::load and Tokenizer::load; corrupt
// (generation_config.json).
#pragma once

#include <filesystem>
#include <optional>
#include <string_view>
#include <vector>

#include "jobs/models/decoder.h"
#include "jobs/models/serving_weights.h"
#include "jobs/serving/engine.h"
#include "jobs/tokenizers/tokenizer.h"
#include "protocol/base/result.h"

namespace tutti::serving {

struct ServedModel {
  models::Decoder decoder;
  models::ServingWeights images;
  std::optional<tokenizers::Tokenizer> tokenizer;  // tokenizer.json
  std::vector<std::int32_t> end_tokens;            // generation_config.json

  EngineModel view() const {
    return {&decoder, &images, tokenizer ? &*tokenizer : nullptr, end_tokens};
  }
};

// With images in one of serving_formats(), where the context's ops run; by the user's cache of
// them.
Result<ServedModel> load_served_model(const kernels::OpContext& ctx,
                                      const std::filesystem::path& folder, std::string_view format);

}  // namespace tutti::serving
