// Checkpoints that keep their matrices in few bits: what is read from them, and that a model served
// from their codes has the bits of the same model in fp32.
#include <cmath>

#include "jobs/models/stored/stored_matrix.h"
#include "tests/unit/models/stored_checkpoint.h"

namespace tutti::models {
namespace {

using test::put;
using test::refusal;
using test::require_read;
using test::same_bits;
using test::says;
using test::stored_description;
using test::StoredExample;
using test::StoredModel;
using test::TemporaryFolder;

// fp8: how the scales of a matrix are cut, and what their tensor is called.
struct Scales {
  std::uint64_t block_outputs = 0;  // 0: all
  std::uint64_t block_inputs = 0;
  std::string_view suffix = "_scale";
  TensorType type = TensorType::f32;
  std::vector<std::uint64_t> (*shape)(std::uint64_t rows, std::uint64_t columns) = nullptr;
};

double e4m3(int code) {
  const int exponent = code >> 3 & 15;
  const double part = (code & 7) / 8.0;
  const double size = exponent == 0 ? std::ldexp(part, -6) : std::ldexp(1.0 + part, exponent - 7);
  return code >= 128 ? -size : size;
}
double e5m2(int code) {
  const int exponent = code >> 2 & 31;
  const double part = (code & 3) / 4.0;
  const double size = exponent == 0 ? std::ldexp(part, -14) : std::ldexp(1.0 + part, exponent - 15);
  return code >= 128 ? -size : size;
}

test::MatrixWriter fp8_writer(TensorType codes_type, Scales scales) {
  return [=](const std::string& name, std::uint64_t outputs, std::uint64_t inputs, Rng& rng) {
    const auto height = scales.block_outputs == 0 ? outputs : scales.block_outputs;
    const auto width = scales.block_inputs == 0 ? inputs : scales.block_inputs;
    const auto rows = (outputs + height - 1) / height;
    const auto columns = (inputs + width - 1) / width;
    StoredExample made;
    made.tensors.push_back({{name, codes_type, {outputs, inputs}}, {}});
    made.tensors.push_back(
        {{name + std::string(scales.suffix), scales.type, scales.shape(rows, columns)}, {}});
    const bool e4 = codes_type == TensorType::f8_e4m3;
    std::vector<float> factors;
    for (std::uint64_t i = 0; i < rows * columns; ++i) {
      // Few bits, so that each type of scales holds it.
      const float size = e4 ? 0.001F : 0.00001F;
      const auto bits = std::bit_cast<std::uint32_t>(size * static_cast<float>(1 + rng.below(40)));
      factors.push_back(std::bit_cast<float>(bits & 0xffff0000U));
      if (scales.type == TensorType::bf16) {
        put(made.tensors[1].bytes, static_cast<std::uint16_t>(bits >> 16));
      } else {
        put(made.tensors[1].bytes, factors.back());
      }
    }
    for (std::uint64_t o = 0; o < outputs; ++o) {
      for (std::uint64_t k = 0; k < inputs; ++k) {
        int code = static_cast<int>(rng.below(256));
        if (e4 && (code & 127) == 127) code &= 0x80;
        if (!e4 && (code & 127) >= 0x7c) code &= 0x83;
        put(made.tensors[0].bytes, static_cast<std::uint8_t>(code));
        const auto number = static_cast<float>(e4 ? e4m3(code) : e5m2(code));
        made.values.push_back(factors[o / height * columns + k / width] * number);
      }
    }
    return made;
  };
}

std::vector<std::uint64_t> by_both(std::uint64_t rows, std::uint64_t columns) {
  return {rows, columns};
}
const Scales kBlocks{128, 128, "_scale_inv", TensorType::f32, by_both};
constexpr const char* kFp8Config =
    R"({"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]})";

}  // namespace

TEST_CASE(
    "stored weights: fp8 with a scale of the whole, of outputs, or of blocks has fp32's bits") {
  const Scales kCuts[] = {
      {0, 0, "_scale", TensorType::f32,
       [](std::uint64_t, std::uint64_t) { return std::vector<std::uint64_t>(); }},
      {0, 0, "_scale", TensorType::f32,
       [](std::uint64_t, std::uint64_t) { return std::vector<std::uint64_t>{1}; }},
      {1, 0, "_scale", TensorType::f32,
       [](std::uint64_t rows, std::uint64_t) { return std::vector<std::uint64_t>{rows}; }},
      {1, 0, "_scale", TensorType::bf16, by_both},
      kBlocks};
  for (const TensorType type : {TensorType::f8_e4m3, TensorType::f8_e5m2}) {
    for (const Scales& scales : kCuts) {
      INFO(to_string(type) << " by " << scales.block_outputs << " and " << scales.block_inputs);
      require_read(StoredModel(stored_description(), kFp8Config, fp8_writer(type, scales)));
    }
  }
}

TEST_CASE("stored weights: fp8 of other block sizes, and as compressed-tensors says it") {
  const Scales wide{64, 256, "_scale_inv", TensorType::f32, by_both};
  require_read(StoredModel(stored_description(),
                           R"({"quant_method": "fp8", "weight_block_size": [64, 256]})",
                           fp8_writer(TensorType::f8_e4m3, wide)));
  const Scales channels{1, 0, "_scale", TensorType::bf16, by_both};
  require_read(StoredModel(
      stored_description(),
      R"({"quant_method": "compressed-tensors", "format": "float-quantized", "ignore": ["lm_head"],
          "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 8,
          "type": "float", "strategy": "channel", "symmetric": true, "dynamic": false}}}})",
      fp8_writer(TensorType::f8_e4m3, channels)));
}

TEST_CASE("stored weights: a model from fp8 is written again in fp32, without a word of fp8") {
  const TemporaryFolder folder;
  const StoredModel model(stored_description(), kFp8Config,
                          fp8_writer(TensorType::f8_e4m3, kBlocks));
  model.write(folder.path());
  const auto loaded = load_model(folder.path());
  REQUIRE(loaded);
  CHECK(read_stored_format(folder.path())->kind == StoredFormat::Kind::fp8);
  const TemporaryFolder other;
  REQUIRE(save_model(loaded->decoder, loaded->weights.span(), other.path()));
  const auto again = load_model(other.path());
  REQUIRE(again);
  CHECK(*read_stored_format(other.path()) == StoredFormat());
  CHECK(same_bits(again->weights.span(), loaded->weights.span()));
}

TEST_CASE("stored weights: fp8 that cannot be read says which tensor and why") {
  const auto model = [](const Scales& scales = kBlocks) {
    return StoredModel(stored_description(), kFp8Config, fp8_writer(TensorType::f8_e4m3, scales));
  };
  StoredModel without = model();
  without.tensor("0.mlp.up_proj.weight_scale_inv").declared.name = "elsewhere";
  says(refusal(without), "model.layers.0.mlp.up_proj.weight` is F8_E4M3 without");
  StoredModel turned = model();
  turned.tensor("0.mlp.up_proj.weight_scale_inv").declared.shape = {2, 3};
  says(refusal(turned), "0.mlp.up_proj.weight_scale_inv` has the shape [2, 3]");
  StoredModel broken = model();
  const float nan = std::nanf("");
  std::memcpy(broken.tensor("1.mlp.down_proj.weight_scale_inv").bytes.data(), &nan, 4);
  says(refusal(broken), "1.mlp.down_proj.weight_scale_inv` holds a scale that is not finite");
  const Scales narrow{64, 64, "_scale_inv", TensorType::f32, by_both};
  StoredModel small(stored_description(),
                    R"({"quant_method": "fp8", "weight_block_size": [64, 64]})",
                    fp8_writer(TensorType::f8_e4m3, narrow));
  says(refusal(small), "blocks of 64 inputs; whole ones of 128 are supported");
  // A code that is no number is one for training to find, and no server's.
  StoredModel spoiled = model();
  spoiled.tensor("1.mlp.down_proj.weight").bytes[5] = std::byte{0x7f};
  const TemporaryFolder folder;
  spoiled.write(folder.path());
  kernels::ThreadPool pool(1);
  const auto served = ServingWeights::load({&pool}, spoiled.decoder, "fp32", folder.path(),
                                           ImageCache(ImageCache::Options{}));
  CHECK(served);
  const auto decoder = load_decoder(folder.path());
  REQUIRE(decoder);
  const auto codes = ServingWeights::load({&pool}, *decoder, "auto", folder.path(),
                                          ImageCache(ImageCache::Options{}));
  REQUIRE_FALSE(codes);
  says(codes.error(), "model.layers.1.mlp.down_proj.weight");
}

TEST_CASE("stored weights: a method that is not read is named, with what can be done") {
  const auto refused = [](std::string_view config) {
    const auto read = parse_config(R"({"model_type": "llama", "num_hidden_layers": 2,
        "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 96, "vocab_size": 100,
        "quantization_config": )" + std::string(config) +
                                   "}");
    REQUIRE_FALSE(read);
    CHECK(read.error().code == ErrorCode::unsupported);
    CHECK(read.error().message.find("--weights") != std::string::npos);
    return read.error().message;
  };
  CHECK(refused(R"({"quant_method": "bitsandbytes", "load_in_4bit": true})").find("bitsandbytes") !=
        std::string::npos);
  CHECK(refused(R"({})").find("``") != std::string::npos);
  CHECK(refused(R"({"quant_method": "compressed-tensors", "format": "pack-quantized"})")
            .find("pack-quantized") != std::string::npos);
  CHECK(refused(R"({"quant_method": "compressed-tensors", "format": "float-quantized",
                    "config_groups": {"g": {"weights": {"num_bits": 4, "type": "float"}}}})")
            .find("4 bits") != std::string::npos);
  CHECK(refused(R"({"quant_method": "fp8", "weight_block_size": [128]})").find("block_size") !=
        std::string::npos);
}

}  // namespace tutti::models
