#include "jobs/models/parameters.h"

#include <catch2/catch.hpp>
#include <string>

namespace tutti::models {
namespace {

DecoderDescription description(std::uint32_t layers) {
  spec::ModelSpec model;
  model.family = "llama";
  model.layers = layers;
  model.width = 72;
  model.heads = 3;
  model.kv_heads = 1;
  model.feed_forward = 104;
  model.vocabulary = 1001;
  return *describe(model, 64);
}

}  // namespace

TEST_CASE("parameters: they lie in the order of their names, aligned, without overlap") {
  const ParameterLayout layout(description(12));
  std::uint64_t end = 0;
  std::string before;
  for (const Parameter& parameter : layout.parameters()) {
    CHECK(parameter.name > before);
    CHECK(parameter.offset % kArenaAlignment == 0);
    CHECK(parameter.offset >= end);
    CHECK(parameter.offset < end + kArenaAlignment);
    CHECK(parameter.decay == (parameter.shape.size() == 2));
    before = parameter.name;
    end = parameter.offset + parameter.elements;
  }
  CHECK(layout.elements() >= end);
  CHECK(layout.parameters().size() == 2 + 12 * 9);
}

TEST_CASE("parameters: the grid cuts every parameter at multiples of 65,536 elements") {
  const ParameterLayout layout(description(1));
  std::uint64_t counted = 0;
  for (const GridBlock& block : layout.blocks()) {
    const Parameter& parameter = layout.parameters()[block.parameter];
    const std::uint64_t at = block.offset - parameter.offset;
    CHECK(at % kGridElements == 0);
    const std::uint64_t rest = parameter.elements - at;
    CHECK(block.elements == (rest < kGridElements ? rest : kGridElements));
    counted += block.elements;
  }
  CHECK(counted == layout.parameter_count());
  // The embedding of 1001 * 72 elements is two blocks.
  CHECK(layout.blocks().size() == layout.parameters().size() + 1);
}

TEST_CASE("parameters: a tied head is the embedding, with room for a second gradient") {
  DecoderDescription d = description(2);
  const ParameterLayout tied(d);
  CHECK(tied.find("lm_head.weight") == tied.find("model.embed_tokens.weight"));
  CHECK(&tied.at(Role::head) == &tied.at(Role::embedding));
  CHECK(tied.gradient_elements() >= tied.elements() + tied.at(Role::embedding).elements);

  d.tied = false;
  const ParameterLayout untied(d);
  CHECK(untied.find("lm_head.weight") == &untied.at(Role::head));
  CHECK(untied.at(Role::head).role == Role::head);
  CHECK(untied.gradient_elements() == untied.elements());
  CHECK(untied.find("model.layers.2.mlp.up_proj.weight") == nullptr);
  CHECK(untied.at(Role::key, 1).name == "model.layers.1.self_attn.k_proj.weight");
  CHECK(untied.at(Role::key, 1).shape == std::vector<std::uint64_t>{24, 72});
}

TEST_CASE("parameters: padded rows of the head are padding of the arena alone") {
  for (const bool tied : {true, false}) {
    DecoderDescription d = description(2);
    d.tied = tied;
    const ParameterLayout plain(d);
    d.vocabulary_multiple = 64;
    REQUIRE(d.vocabulary_rows() == 1024);
    const ParameterLayout padded(d);
    // 1001 rows have 8 numbers of padding behind them anyway.
    CHECK(padded.elements() - plain.elements() == (1024 - 1001) * 72 - 8);
    CHECK(padded.gradient_elements() - plain.gradient_elements() == (1024 - 1001) * 72 - 8);
    CHECK(padded.parameter_count() == plain.parameter_count());
    CHECK(padded.blocks().size() == plain.blocks().size());
    for (std::size_t i = 0; i < plain.parameters().size(); ++i) {
      CHECK(padded.parameters()[i].shape == plain.parameters()[i].shape);
      CHECK(padded.parameters()[i].elements == plain.parameters()[i].elements);
    }
    // No parameter begins before the last padded row has ended.
    const std::uint64_t end = padded.at(Role::head).offset + 1024 * 72;
    for (const Parameter& parameter : padded.parameters()) {
      CHECK((parameter.offset <= padded.at(Role::head).offset || parameter.offset >= end));
    }
    CHECK(padded.elements() >= end);
  }
}

TEST_CASE("parameters: a GPT-2 has the tensors of its files, a row an input") {
  spec::ModelSpec model;
  model.family = "gpt2";
  model.layers = 2;
  model.width = 64;
  model.heads = 4;
  model.vocabulary = 90;
  const ParameterLayout layout(*describe(model, 32));
  using Shape = std::vector<std::uint64_t>;
  CHECK(layout.find("transformer.h.1.attn.c_attn.weight")->shape == Shape{64, 192});
  CHECK(layout.find("transformer.h.1.attn.c_attn.bias")->shape == Shape{192});
  CHECK(layout.find("transformer.h.0.mlp.c_fc.weight")->shape == Shape{64, 256});
  CHECK(layout.find("transformer.h.0.mlp.c_proj.weight")->shape == Shape{256, 64});
  CHECK(layout.find("transformer.wpe.weight")->shape == Shape{32, 64});
  CHECK(layout.find("lm_head.weight") == &layout.at(Role::embedding));
  CHECK(layout.find(Role::gate) == nullptr);
  CHECK(layout.find(Role::query, 1) == nullptr);
  CHECK(layout.parameters().size() == 2 * 12 + 4);
  for (const Parameter& parameter : layout.parameters()) {
    INFO(parameter.name);
    const bool bias = parameter.name.ends_with(".bias");
    CHECK(parameter.init_value == (bias ? 0.0F : 1.0F));
    CHECK(parameter.decay == (parameter.shape.size() == 2));
  }
}

}  // namespace tutti::models
