// Llama 1 to 3 (Touvron et al. 2023, Dubey et al. 2024): RMS norm before each half of a layer,
// rotary positions, gated SiLU, grouped key and value heads, no biases.
#include <fmt/core.h>

#include "jobs/models/families/config_reader.h"
#include "jobs/models/families/family.h"

namespace tutti::models {

namespace json = boost::json;

namespace {

DecoderDescription parts() {
  DecoderDescription description;
  description.family = "llama";
  return description;
}

// Transformers up to 4 writes `rope_theta` and `rope_scaling`; 5 writes both in `rope_parameters`.
// The kind is `rope_type`, in old files `type`.
void read_rope(ConfigReader& config, DecoderDescription& description) {
  description.rope_theta = config.number_or("rope_theta", 10'000);
  const auto* parameters = config.object("rope_parameters");
  if (parameters == nullptr) parameters = config.object("rope_scaling");
  if (parameters == nullptr) return;

  ConfigReader rope(*parameters);
  description.rope_theta = rope.number_or("rope_theta", description.rope_theta);
  const std::string kind = rope.text_or("rope_type", rope.text_or("type", "default"));
  if (kind == "llama3") {
    description.rope_scaling = {
        .kind = RopeScaling::Kind::llama3,
        .factor = rope.number("factor"),
        .low_frequency_factor = rope.number("low_freq_factor"),
        .high_frequency_factor = rope.number("high_freq_factor"),
        .original_positions = rope.count("original_max_position_embeddings"),
    };
  } else if (kind != "default") {
    rope.fail(ErrorCode::unsupported,
              fmt::format("rope_type `{}` is not supported (default, llama3)", kind));
  }
  if (!rope.result()) config.fail(rope.result().error().code, rope.result().error().message);
}

void refuse_other_arithmetic(ConfigReader& config) {
  const std::string activation = config.text_or("hidden_act", "silu");
  if (activation != "silu") {
    config.fail(ErrorCode::unsupported,
                fmt::format("hidden_act `{}` is not supported (silu)", activation));
  }
  for (const char* key : {"attention_bias", "mlp_bias"}) {
    if (config.flag_or(key, false)) {
      config.fail(ErrorCode::unsupported, fmt::format("`{}` is not supported", key));
    }
  }
}

Result<DecoderDescription> read(const json::object& object) {
  ConfigReader config(object);
  DecoderDescription description = parts();
  description.layers = config.count("num_hidden_layers");
  description.width = config.count("hidden_size");
  description.heads = config.count("num_attention_heads");
  description.kv_heads = config.count_or("num_key_value_heads", description.heads);
  description.head_dim = config.count_or(
      "head_dim", description.heads == 0 ? 0 : description.width / description.heads);
  description.feed_forward = config.count("intermediate_size");
  description.vocabulary = config.count("vocab_size");
  description.positions_max = config.count_or("max_position_embeddings", 2048);
  description.norm_epsilon = config.number_or("rms_norm_eps", 1e-6);
  description.tied = config.flag_or("tie_word_embeddings", false);
  description.init_deviation = config.number_or("initializer_range", 0.02);
  read_special_tokens(config, description);
  read_rope(config, description);
  refuse_other_arithmetic(config);
  if (!config.result()) return config.result().error();
  return description;
}

json::object rope_parameters(const DecoderDescription& description) {
  const RopeScaling& scaling = description.rope_scaling;
  if (scaling.kind == RopeScaling::Kind::none) {
    return {{"rope_type", "default"}, {"rope_theta", description.rope_theta}};
  }
  return {{"rope_type", "llama3"},
          {"rope_theta", description.rope_theta},
          {"factor", scaling.factor},
          {"low_freq_factor", scaling.low_frequency_factor},
          {"high_freq_factor", scaling.high_frequency_factor},
          {"original_max_position_embeddings", scaling.original_positions}};
}

void write(const DecoderDescription& description, json::object& config) {
  config["architectures"] = json::array{"LlamaForCausalLM"};
  config["model_type"] = "llama";
  config["hidden_size"] = description.width;
  config["num_hidden_layers"] = description.layers;
  config["num_attention_heads"] = description.heads;
  config["num_key_value_heads"] = description.kv_heads;
  config["head_dim"] = description.head_dim;
  config["intermediate_size"] = description.feed_forward;
  config["vocab_size"] = description.vocabulary;
  config["max_position_embeddings"] = description.positions_max;
  config["rms_norm_eps"] = description.norm_epsilon;
  config["initializer_range"] = description.init_deviation;
  config["tie_word_embeddings"] = description.tied;
  config["hidden_act"] = "silu";
  config["attention_bias"] = false;
  config["mlp_bias"] = false;
  config["attention_dropout"] = 0.0;
  config["use_cache"] = true;
  write_special_tokens(description, config);
  const json::object rope = rope_parameters(description);
  config["rope_parameters"] = rope;
  config["rope_theta"] = description.rope_theta;
  if (description.rope_scaling.kind == RopeScaling::Kind::none) {
    config["rope_scaling"] = nullptr;
  } else {
    config["rope_scaling"] = rope;
  }
  config["torch_dtype"] = "float32";
}

std::string tensor_name(Role role, std::uint32_t layer) {
  const auto in_layer = [&](std::string_view rest) {
    return fmt::format("model.layers.{}.{}.weight", layer, rest);
  };
  switch (role) {
    case Role::embedding: return "model.embed_tokens.weight";
    case Role::attention_norm: return in_layer("input_layernorm");
    case Role::query: return in_layer("self_attn.q_proj");
    case Role::key: return in_layer("self_attn.k_proj");
    case Role::value: return in_layer("self_attn.v_proj");
    case Role::output: return in_layer("self_attn.o_proj");
    case Role::feed_forward_norm: return in_layer("post_attention_layernorm");
    case Role::gate: return in_layer("mlp.gate_proj");
    case Role::up: return in_layer("mlp.up_proj");
    case Role::down: return in_layer("mlp.down_proj");
    case Role::final_norm: return "model.norm.weight";
    case Role::head: return "lm_head.weight";
    default: return {};
  }
}

}  // namespace

const Family kLlama = {"llama", "llama", read, write, tensor_name, parts};

}  // namespace tutti::models
