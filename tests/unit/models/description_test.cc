#include "jobs/models/description.h"

#include <catch2/catch.hpp>
#include <string>

#include "jobs/models/families/family.h"

namespace tutti::models {
namespace {

DecoderDescription small(std::string_view family) {
  DecoderDescription d = find_family(family)->parts();
  d.layers = 2;
  d.width = 32;
  d.heads = 4;
  d.kv_heads = d.projections == Projections::fused ? 4 : 2;
  d.head_dim = 8;
  d.feed_forward = 48;
  d.vocabulary = 80;
  d.positions_max = 128;
  d.end_tokens = {2};
  return d;
}

// A config.json with one key replaced (or, with an empty value, removed).
std::string config_with(std::string_view key, std::string_view value) {
  std::string text = to_config_json(small("llama"));
  const auto at = text.find("\"" + std::string(key) + "\":");
  REQUIRE(at != std::string::npos);
  const auto end = text.find('\n', at);
  std::string line = value.empty() ? "\"unused\": 0" : "\"" + std::string(key) + "\": ";
  line += value;
  if (text[end - 1] == ',') line += ',';
  return text.replace(at, end - at, line);
}

}  // namespace

TEST_CASE("description: config.json written by a family reads as the same description") {
  for (const Family& family : families()) {
    DecoderDescription d = small(family.name);
    CHECK(*parse_config(to_config_json(d)) == d);
    d.tied = true;
    d.begin_token = 1;
    d.end_tokens = {2, 5};
    CHECK(*parse_config(to_config_json(d)) == d);
    if (d.positions != Positions::rotary) continue;
    d.rope_theta = 500'000;
    d.rope_scaling = {RopeScaling::Kind::llama3, 8, 1, 4, 64};
    CHECK(*parse_config(to_config_json(d)) == d);
  }
}

TEST_CASE("description: rotary settings of older files are read") {
  const auto d = parse_config(R"({"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 1,
    "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 80, "rope_theta": 500000.0,
    "rope_scaling": {"type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4,
                     "original_max_position_embeddings": 64}})");
  REQUIRE(d);
  CHECK(d->kv_heads == 4);
  CHECK(d->head_dim == 8);
  CHECK(d->rope_theta == 500'000);
  CHECK(d->rope_scaling == RopeScaling{RopeScaling::Kind::llama3, 8, 1, 4, 64});
}

TEST_CASE("description: a wrong config.json is one line that names the key") {
  const auto error = [](std::string_view text) {
    const auto parsed = parse_config(text);
    REQUIRE_FALSE(parsed);
    CHECK(parsed.error().message.find('\n') == std::string::npos);
    return parsed.error();
  };
  CHECK(error("{").code == ErrorCode::corrupt);
  CHECK(error("[]").code == ErrorCode::corrupt);
  CHECK(error("{}") == Error{ErrorCode::invalid_argument, "`model_type` is missing"});
  CHECK(error(config_with("model_type", "\"gpt9\"")) ==
        Error{ErrorCode::unsupported, "model_type `gpt9` is not supported (known: gpt2, llama)"});
  CHECK(error(config_with("hidden_size", "")) ==
        Error{ErrorCode::invalid_argument, "`hidden_size` is missing"});
  CHECK(error(config_with("num_hidden_layers", "-1")).message ==
        "`num_hidden_layers` is -1, not a whole number from 0 to 2147483647");
  CHECK(error(config_with("vocab_size", "\"many\"")).code == ErrorCode::invalid_argument);
  CHECK(error(config_with("attention_bias", "true")) ==
        Error{ErrorCode::unsupported, "`attention_bias` is not supported"});
  CHECK(error(config_with("hidden_act", "\"gelu\"")).code == ErrorCode::unsupported);
  CHECK(error(config_with("rope_parameters", R"({"rope_type": "yarn"})")) ==
        Error{ErrorCode::unsupported, "rope_type `yarn` is not supported (default, llama3)"});
  CHECK(error(config_with("num_key_value_heads", "3")).message ==
        "model: 4 heads cannot share 3 key/value heads evenly");
  CHECK(error(config_with("head_dim", "12")).code == ErrorCode::unsupported);
  CHECK(error(config_with("vocab_size", "0")).message ==
        "model: vocabulary is 0; it must be from 1 to 16777216");
}

TEST_CASE("description: a spec's model gets its defaults and its limits") {
  spec::ModelSpec model;
  model.family = "llama";
  model.layers = 4;
  model.width = 192;
  model.heads = 6;
  model.vocabulary = 2048;
  const auto d = describe(model, 256);
  REQUIRE(d);
  CHECK(d->kv_heads == 6);
  CHECK(d->head_dim == 32);
  CHECK(d->feed_forward == 512);
  CHECK(d->positions_max == 256);
  CHECK(d->tied);

  model.heads = 5;
  CHECK(describe(model, 256).error() ==
        Error{ErrorCode::invalid_argument, "model: width 192 is not a multiple of heads 5"});
  model.heads = 6;
  model.family = "lama";
  CHECK(describe(model, 256).error() ==
        Error{ErrorCode::unsupported, "model: unknown family `lama` (known: gpt2, llama)"});
}

TEST_CASE("description: what a GPT-2's config.json leaves out, and what it may not say") {
  const std::string shape =
      R"("model_type": "gpt2", "n_layer": 2, "n_embd": 32, "n_head": 4, "vocab_size": 80)";
  const auto d = parse_config("{" + shape + "}");
  REQUIRE(d);
  CHECK(d->norm == Norm::layer);
  CHECK(d->positions == Positions::learned);
  CHECK(d->positions_max == 1024);
  CHECK(d->feed_forward == 128);
  CHECK(d->activation == kernels::Activation::gelu_tanh);
  CHECK(d->tied);
  const auto with = [&](std::string_view more) {
    return parse_config("{" + shape + ", " + std::string(more) + "}");
  };
  CHECK(with(R"("activation_function": "gelu", "n_inner": null)")->activation ==
        kernels::Activation::gelu);
  CHECK(with(R"("activation_function": "mish")").error() ==
        Error{ErrorCode::unsupported, "activation_function `mish` is not supported"});
  CHECK(with(R"("scale_attn_by_inverse_layer_idx": true)").error().code == ErrorCode::unsupported);
  CHECK(with(R"("scale_attn_weights": false)").error().code == ErrorCode::unsupported);

  spec::ModelSpec model;
  model.family = "gpt2";
  model.layers = 2;
  model.width = 32;
  model.heads = 4;
  model.vocabulary = 80;
  CHECK(describe(model, 16)->feed_forward == 128);
  model.kv_heads = 2;
  CHECK(describe(model, 16).error().message.find("one matrix of equal parts") != std::string::npos);
}

TEST_CASE("description: a model folder without config.json is not found") {
  CHECK(read_config("/nonexistent/model").error().code == ErrorCode::not_found);
}

}  // namespace tutti::models
