// Checkpoints that keep their matrices in few bits: what is read from them, and that a model served
// from their codes has the bits of the same model in fp32.
#include <cmath>

#include "jobs/models/stored/stored_matrix.h"
#include "tests/unit/models/stored_checkpoint.h"
#include "tests/unit/models/stored_fp8.h"

namespace tutti::models {
namespace {

using test::by_both;
using test::contents_of;
using test::fp8_writer;
using test::hash_of_rows;
using test::kBlocks;
using test::kFp8Config;
using test::logits;
using test::refusal;
using test::require_own_images;
using test::require_read;
using test::same_bits;
using test::says;
using test::Scales;
using test::start;
using test::Start;
using test::stored_description;
using test::StoredModel;
using test::TemporaryFolder;

StoredModel fp8_model(TensorType type = TensorType::f8_e4m3) {
  return {stored_description(), kFp8Config, fp8_writer(type, kBlocks)};
}

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

TEST_CASE("stored weights: fp8 of which a code, a scale or a plain weight changed has own images") {
  require_own_images(fp8_model(), "0.mlp.up_proj.weight", 8 * 5000);
  require_own_images(fp8_model(), "1.mlp.down_proj.weight_scale_inv", 8 * 4 * 3 + 22);
  require_own_images(fp8_model(), "1.input_layernorm.weight", 22);
  require_own_images(fp8_model(), "lm_head.weight", 32 * 100 + 22);
  require_own_images(fp8_model(TensorType::f8_e5m2), "0.self_attn.q_proj.weight", 8 * 77);
}

TEST_CASE("stored weights: images of the same codes by other scales' cut are others") {
  // All scales are one number, by which a matrix's codes are of one scale or of one an output.
  const Scales one{0, 0, "_scale", TensorType::f32,
                   [](std::uint64_t, std::uint64_t) { return std::vector<std::uint64_t>{1}; }};
  const TemporaryFolder folder;
  const TemporaryFolder kept;
  const ImageCache cache({.folder = kept.path()});
  StoredModel model(stored_description(), kFp8Config, fp8_writer(TensorType::f8_e4m3, one));
  model.write(folder.path());
  const auto expected =
      logits(model.decoder, start(model.decoder, folder.path(), cache).images, 24);
  for (test::StoredTensor& tensor : model.tensors) {
    if (!tensor.declared.name.ends_with("_scale")) continue;
    std::string matrix = tensor.declared.name;
    matrix.resize(matrix.size() - std::string_view("_scale").size());
    const std::uint64_t outputs = model.tensor(matrix).declared.shape[0];
    tensor.declared.shape = {outputs};
    const test::Bytes scale = tensor.bytes;
    for (std::uint64_t i = 1; i < outputs; ++i) {
      tensor.bytes.insert(tensor.bytes.end(), scale.begin(), scale.end());
    }
  }
  const TemporaryFolder other;
  model.write(other.path());
  const Start cut = start(model.decoder, other.path(), cache);
  CHECK(cut.ops > 0);
  CHECK(contents_of(kept.path()).size() == 2);
  CHECK(same_bits(logits(model.decoder, cut.images, 24), expected));
}

TEST_CASE("stored weights: damaged or foreign images of codes are made anew, with the same bits") {
  const TemporaryFolder folder;
  const TemporaryFolder kept;
  const ImageCache cache({.folder = kept.path()});
  const StoredModel model = fp8_model();
  model.write(folder.path());
  const auto expected =
      logits(model.decoder, start(model.decoder, folder.path(), cache).images, 24);
  const auto written = contents_of(kept.path());
  REQUIRE(written.size() == 1);
  const auto& [name, whole] = *written.begin();
  const auto is_made_anew = [&] {
    const Start again = start(model.decoder, folder.path(), cache);
    CHECK(again.ops > 0);
    CHECK(same_bits(logits(model.decoder, again.images, 24), expected));
    CHECK(contents_of(kept.path()) == written);
    CHECK(start(model.decoder, folder.path(), cache).ops == 0);
  };
  const auto write = [&](const std::string& bytes) {
    REQUIRE(write_file_atomically(kept.path() / name, bytes));
  };
  // In the header, the table, the norms, a matrix, the head.
  for (const std::size_t at : {std::size_t{30}, std::size_t{90}, std::size_t{4096 + 40},
                               whole.size() / 2, whole.size() - 4096}) {
    INFO(at << " of " << whole.size());
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 4);
    write(damaged);
    is_made_anew();
  }
  write(whole.substr(0, whole.size() - 4096));
  is_made_anew();
  write("something else");
  is_made_anew();
  // A sound file of this key with pieces of another model.
  kernels::ThreadPool pool(1);
  const test::Bytes piece(4096);
  const std::span<const std::byte> pieces[] = {piece};
  REQUIRE(cache.store(
      {&pool},
      {std::stoull(name.substr(0, 16), nullptr, 16), std::stoull(name.substr(16, 16), nullptr, 16)},
      pieces));
  is_made_anew();
}

TEST_CASE("stored weights: images of codes give way to others, and go where they find no room") {
  const TemporaryFolder kept;
  const TemporaryFolder folders[2];
  const StoredModel both[] = {fp8_model(), fp8_model(TensorType::f8_e5m2)};
  const auto start_of = [&](int which, const ImageCache& cache) {
    return start(both[which].decoder, folders[which].path(), cache);
  };
  for (int i = 0; i < 2; ++i) both[i].write(folders[i].path());
  REQUIRE(start_of(0, ImageCache({.folder = kept.path()})).ops > 0);
  const auto first = contents_of(kept.path());
  REQUIRE(first.size() == 1);
  const std::uint64_t size = first.begin()->second.size();
  // Room for one, not for two.
  const ImageCache small({.folder = kept.path(), .bytes_max = size + size / 2});
  const Start second = start_of(1, small);
  CHECK(contents_of(kept.path()).size() == 1);
  CHECK_FALSE(contents_of(kept.path()).contains(first.begin()->first));
  CHECK(start_of(1, small).ops == 0);
  CHECK(start_of(0, small).ops > 0);
  CHECK(contents_of(kept.path()) == first);
  const Start mapped = start_of(0, small);
  REQUIRE(mapped.ops == 0);
  const auto before = logits(both[0].decoder, mapped.images, 24);
  CHECK(start_of(1, small).ops > 0);
  CHECK_FALSE(contents_of(kept.path()).contains(first.begin()->first));
  // What was mapped stays.
  CHECK(same_bits(logits(both[0].decoder, mapped.images, 24), before));
  const ImageCache tiny({.folder = kept.path(), .bytes_max = size / 2});
  CHECK(start_of(0, tiny).ops > 0);
  CHECK(start_of(0, tiny).ops > 0);
}

// Kept files hold what is made of these rows: where one of these hashes changes,
// kStoredRowsVersion does too.
TEST_CASE("stored weights: rows of fp8 are those of version 1") {
  REQUIRE(kStoredRowsVersion == 1);
  CHECK(hash_of_rows(fp8_model()) == "fd00c0c022e930d1c0e1c446d01df0ee");
  CHECK(hash_of_rows(fp8_model(TensorType::f8_e5m2)) == "ba6640d4212318f516ce18fe17ffc826");
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
