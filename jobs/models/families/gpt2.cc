// GPT-2 (Radford et al. 2019): layer norm before each half of a layer, learned positions, biases,
// GELU by its tanh form; matrices lie a row an input, and query, key and value are one.
//
// Its dropouts are training's, and no job here drops; they are read past and written as zeros.
#include <fmt/core.h>

#include "jobs/models/families/config_reader.h"
#include "jobs/models/families/family.h"

namespace tutti::models {

namespace json = boost::json;

namespace {

constexpr std::string_view kPrefix = "transformer.";

struct ActivationName {
  std::string_view name;
  kernels::Activation kind;
};
// The first of a kind is written.
constexpr ActivationName kActivations[] = {{"gelu_new", kernels::Activation::gelu_tanh},
                                           {"gelu_pytorch_tanh", kernels::Activation::gelu_tanh},
                                           {"gelu", kernels::Activation::gelu},
                                           {"relu", kernels::Activation::relu},
                                           {"silu", kernels::Activation::silu},
                                           {"swish", kernels::Activation::silu}};

DecoderDescription parts() {
  DecoderDescription description;
  description.family = "gpt2";
  description.norm = Norm::layer;
  description.positions = Positions::learned;
  description.order = WeightOrder::inputs;
  description.projections = Projections::fused;
  description.inner = FeedForward::plain;
  description.activation = kernels::Activation::gelu_tanh;
  description.biases = true;
  return description;
}

void read_activation(ConfigReader& config, DecoderDescription& description) {
  const std::string name = config.text_or("activation_function", "gelu_new");
  for (const ActivationName& known : kActivations) {
    if (known.name != name) continue;
    description.activation = known.kind;
    return;
  }
  config.fail(ErrorCode::unsupported,
              fmt::format("activation_function `{}` is not supported", name));
}

void refuse_other_arithmetic(ConfigReader& config) {
  if (!config.flag_or("scale_attn_weights", true)) {
    config.fail(ErrorCode::unsupported, "`scale_attn_weights` false is not supported");
  }
  for (const char* key : {"scale_attn_by_inverse_layer_idx", "add_cross_attention"}) {
    if (config.flag_or(key, false)) {
      config.fail(ErrorCode::unsupported, fmt::format("`{}` is not supported", key));
    }
  }
}

Result<DecoderDescription> read(const json::object& object) {
  ConfigReader config(object);
  DecoderDescription description = parts();
  description.layers = config.count("n_layer");
  description.width = config.count("n_embd");
  description.heads = config.count("n_head");
  description.kv_heads = description.heads;
  description.head_dim = description.heads == 0 ? 0 : description.width / description.heads;
  description.feed_forward = config.count_or("n_inner", 4 * description.width);
  description.vocabulary = config.count("vocab_size");
  description.positions_max = config.count_or("n_positions", 1024);
  description.norm_epsilon = config.number_or("layer_norm_epsilon", 1e-5);
  description.tied = config.flag_or("tie_word_embeddings", true);
  description.init_deviation = config.number_or("initializer_range", 0.02);
  read_special_tokens(config, description);
  read_activation(config, description);
  refuse_other_arithmetic(config);
  if (!config.result()) return config.result().error();
  if (description.heads != 0 && description.width % description.heads != 0) {
    return Error{ErrorCode::invalid_argument,
                 fmt::format("`n_embd` {} is not a multiple of `n_head` {}", description.width,
                             description.heads)};
  }
  return description;
}

void write(const DecoderDescription& description, json::object& config) {
  config["architectures"] = json::array{"GPT2LMHeadModel"};
  config["model_type"] = "gpt2";
  config["n_embd"] = description.width;
  config["n_layer"] = description.layers;
  config["n_head"] = description.heads;
  config["n_inner"] = description.feed_forward;
  config["vocab_size"] = description.vocabulary;
  config["n_positions"] = description.positions_max;
  config["n_ctx"] = description.positions_max;
  config["layer_norm_epsilon"] = description.norm_epsilon;
  config["initializer_range"] = description.init_deviation;
  config["tie_word_embeddings"] = description.tied;
  for (const ActivationName& known : kActivations) {
    if (known.kind != description.activation) continue;
    config["activation_function"] = known.name;
    break;
  }
  for (const char* const key : {"attn_pdrop", "embd_pdrop", "resid_pdrop"}) config[key] = 0.0;
  config["scale_attn_weights"] = true;
  config["use_cache"] = true;
  write_special_tokens(description, config);
  config["torch_dtype"] = "float32";
}

std::string tensor_name(Role role, std::uint32_t layer) {
  const auto in_layer = [&](std::string_view rest) {
    return fmt::format("{}h.{}.{}", kPrefix, layer, rest);
  };
  const auto outside = [](std::string_view rest) { return fmt::format("{}{}", kPrefix, rest); };
  switch (role) {
    case Role::embedding: return outside("wte.weight");
    case Role::position_embedding: return outside("wpe.weight");
    case Role::attention_norm: return in_layer("ln_1.weight");
    case Role::attention_norm_bias: return in_layer("ln_1.bias");
    case Role::projections: return in_layer("attn.c_attn.weight");
    case Role::projections_bias: return in_layer("attn.c_attn.bias");
    case Role::output: return in_layer("attn.c_proj.weight");
    case Role::output_bias: return in_layer("attn.c_proj.bias");
    case Role::feed_forward_norm: return in_layer("ln_2.weight");
    case Role::feed_forward_norm_bias: return in_layer("ln_2.bias");
    case Role::up: return in_layer("mlp.c_fc.weight");
    case Role::up_bias: return in_layer("mlp.c_fc.bias");
    case Role::down: return in_layer("mlp.c_proj.weight");
    case Role::down_bias: return in_layer("mlp.c_proj.bias");
    case Role::final_norm: return outside("ln_f.weight");
    case Role::final_norm_bias: return outside("ln_f.bias");
    case Role::head: return "lm_head.weight";
    default: return {};
  }
}

}  // namespace

const Family kGpt2 = {"gpt2", "gpt2", read, write, tensor_name, parts, kPrefix};

}  // namespace tutti::models
