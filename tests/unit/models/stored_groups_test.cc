// Checkpoints in the layouts of GPTQ and AWQ: codes with a scale and a zero for each group of
// inputs.
#include <fmt/core.h>

#include <utility>

#include "jobs/models/stored/stored_matrix.h"
#include "tests/unit/models/stored_checkpoint.h"

namespace tutti::models {
namespace {

using test::hash_of_rows;
using test::put;
using test::refusal;
using test::require_own_images;
using test::require_read;
using test::says;
using test::stored_description;
using test::StoredExample;
using test::StoredModel;
using test::StoredTensor;
using test::TemporaryFolder;

std::string base_of(const std::string& tensor) {
  return tensor.substr(0, tensor.size() - std::string(".weight").size());
}

// Codes, scales and zeros of a matrix, apart from how a layout packs them.
struct Numbers {
  Numbers(std::uint64_t outputs_in, std::uint64_t inputs, std::uint64_t groups_in,
          std::uint64_t bits, Rng& rng)
      : outputs(outputs_in), groups(groups_in) {
    const std::uint64_t most = std::uint64_t{1} << bits;
    for (std::uint64_t i = 0; i < inputs * outputs; ++i) {
      codes.push_back(static_cast<std::uint32_t>(rng.below(most)));
    }
    for (std::uint64_t i = 0; i < groups * outputs; ++i) {
      // Zeros of none and of all ones among them.
      zeros.push_back(static_cast<std::uint32_t>(rng.below(most)));
      // Of the bits of a half: 1.m times 2^-9 (four bits) or 2^-13.
      halves.push_back(static_cast<std::uint16_t>((bits == 4 ? 6U : 2U) << 10 | rng.below(1024)));
    }
  }
  std::uint32_t code(std::uint64_t k, std::uint64_t o) const { return codes[k * outputs + o]; }
  std::uint32_t zero(std::uint64_t g, std::uint64_t o) const { return zeros[g * outputs + o]; }
  float value(std::uint64_t g, std::uint64_t k, std::uint64_t o) const {
    const std::uint32_t half = halves[g * outputs + o];
    const auto scale = std::bit_cast<float>(((half >> 10) + 112) << 23 | (half & 1023U) << 13);
    return scale * static_cast<float>(static_cast<int>(code(k, o)) - static_cast<int>(zero(g, o)));
  }
  StoredTensor scales(const std::string& base) const {
    StoredTensor tensor{{base + ".scales", TensorType::f16, {groups, outputs}}, {}};
    for (const std::uint16_t half : halves) put(tensor.bytes, half);
    return tensor;
  }

  std::uint64_t outputs, groups;
  std::vector<std::uint32_t> codes;   // [inputs, outputs]
  std::vector<std::uint32_t> zeros;   // [groups, outputs]
  std::vector<std::uint16_t> halves;  // [groups, outputs]
};

// `count` numbers of `bits` as a word, the j-th of them number(j).
template <class Number>
std::uint32_t word_of(std::uint64_t bits, const Number& number) {
  std::uint32_t word = 0;
  for (std::uint64_t j = 0; j < 32 / bits; ++j) {
    word |= (number(j) & ((1U << bits) - 1)) << (bits * j);
  }
  return word;
}

struct Gptq {
  std::uint64_t bits = 4;
  std::uint64_t group = 32;  // 0: all inputs
  bool act_order = false;
  bool less_one = true;
  bool has_indices = true;
};

test::MatrixWriter gptq_writer(Gptq form) {
  return [=](const std::string& name, std::uint64_t outputs, std::uint64_t inputs, Rng& rng) {
    const std::uint64_t group = form.group == 0 ? inputs : form.group;
    const std::uint64_t groups = (inputs + group - 1) / group;
    std::vector<std::uint64_t> owner(inputs);
    for (std::uint64_t k = 0; k < inputs; ++k) owner[k] = k / group;
    for (std::uint64_t k = inputs; form.act_order && k > 1; --k) {
      std::swap(owner[k - 1], owner[rng.below(k)]);
    }
    const Numbers numbers(outputs, inputs, groups, form.bits, rng);
    const std::uint64_t in_word = 32 / form.bits;
    const std::string base = base_of(name);
    StoredTensor words{{base + ".qweight", TensorType::i32, {inputs / in_word, outputs}}, {}};
    for (std::uint64_t first = 0; first < inputs; first += in_word) {
      for (std::uint64_t o = 0; o < outputs; ++o) {
        put(words.bytes,
            word_of(form.bits, [&](std::uint64_t j) { return numbers.code(first + j, o); }));
      }
    }
    StoredTensor zeros{{base + ".qzeros", TensorType::i32, {groups, outputs / in_word}}, {}};
    for (std::uint64_t g = 0; g < groups; ++g) {
      for (std::uint64_t first = 0; first < outputs; first += in_word) {
        put(zeros.bytes, word_of(form.bits, [&](std::uint64_t j) {
              return numbers.zero(g, first + j) - (form.less_one ? 1U : 0U);
            }));
      }
    }
    StoredTensor indices{{base + ".g_idx", TensorType::i32, {inputs}}, {}};
    for (const std::uint64_t g : owner) put(indices.bytes, static_cast<std::uint32_t>(g));
    StoredExample made{{std::move(words), std::move(zeros), numbers.scales(base)}, {}};
    if (form.has_indices) made.tensors.push_back(std::move(indices));
    for (std::uint64_t o = 0; o < outputs; ++o) {
      for (std::uint64_t k = 0; k < inputs; ++k) {
        made.values.push_back(numbers.value(owner[k], k, o));
      }
    }
    return made;
  };
}

// AWQ: outputs packed into words, as 0 2 4 6 1 3 5 7 from the lowest bits on.
test::MatrixWriter awq_writer(std::uint64_t group_size) {
  return [=](const std::string& name, std::uint64_t outputs, std::uint64_t inputs, Rng& rng) {
    constexpr std::uint64_t kOrder[] = {0, 2, 4, 6, 1, 3, 5, 7};
    const std::uint64_t group = group_size == 0 ? inputs : group_size;
    const std::uint64_t groups = (inputs + group - 1) / group;
    const Numbers numbers(outputs, inputs, groups, 4, rng);
    const std::string base = base_of(name);
    StoredTensor words{{base + ".qweight", TensorType::i32, {inputs, outputs / 8}}, {}};
    StoredTensor zeros{{base + ".qzeros", TensorType::i32, {groups, outputs / 8}}, {}};
    for (std::uint64_t first = 0; first < inputs * outputs; first += 8) {
      put(words.bytes,
          word_of(4, [&](std::uint64_t j) { return numbers.codes[first + kOrder[j]]; }));
    }
    for (std::uint64_t first = 0; first < groups * outputs; first += 8) {
      put(zeros.bytes,
          word_of(4, [&](std::uint64_t j) { return numbers.zeros[first + kOrder[j]]; }));
    }
    StoredExample made{{std::move(words), std::move(zeros), numbers.scales(base)}, {}};
    for (std::uint64_t o = 0; o < outputs; ++o) {
      for (std::uint64_t k = 0; k < inputs; ++k) {
        made.values.push_back(numbers.value(k / group, k, o));
      }
    }
    return made;
  };
}

std::string config_of(const Gptq& form) {
  return fmt::format(
      R"({{"quant_method": "gptq", "bits": {}, "group_size": {}, "desc_act": {}, "sym": false,
          "checkpoint_format": "{}"}})",
      form.bits, form.group == 0 ? -1 : static_cast<int>(form.group), form.act_order,
      form.less_one ? "gptq" : "gptq_v2");
}

StoredModel gptq(const Gptq& form) {
  return {stored_description(), config_of(form), gptq_writer(form)};
}

StoredModel awq(std::uint64_t group) {
  return {
      stored_description(),
      fmt::format(R"({{"quant_method": "awq", "bits": 4, "version": "gemm", "group_size": {}}})",
                  group == 0 ? -1 : static_cast<int>(group)),
      awq_writer(group)};
}

}  // namespace

TEST_CASE("stored weights: GPTQ of each form has the bits of its values, trained from and served") {
  std::uint64_t in_place = 0;
  for (const Gptq& form :
       {Gptq{}, Gptq{.less_one = false}, Gptq{.group = 0}, Gptq{.group = 128, .has_indices = false},
        Gptq{.act_order = true}, Gptq{.group = 128, .act_order = true, .less_one = false},
        Gptq{.bits = 8}, Gptq{.bits = 8, .group = 0, .less_one = false},
        Gptq{.bits = 8, .act_order = true}}) {
    INFO(config_of(form));
    const std::uint64_t bytes = require_read(gptq(form));
    if (form.bits == 4 && !form.act_order) in_place = bytes;
    // Entries of inputs cost, and eight bits do.
    if (form.bits == 8 || form.act_order) CHECK(bytes > in_place);
  }
}

TEST_CASE("stored weights: AWQ has the bits of its values, trained from and served") {
  for (const std::uint64_t group : {0U, 32U, 64U, 128U}) {
    const std::string size = group == 0 ? "-1" : std::to_string(group);
    INFO("groups of " << size);
    require_read(awq(group));
    // As its first tools named them.
    require_read(
        {stored_description(),
         R"({"quant_method": "awq", "w_bit": 4, "zero_point": true, "q_group_size": )" + size + "}",
         awq_writer(group)});
  }
}

TEST_CASE("stored weights: groups of which a code, scale, zero or index changed have own images") {
  for (const Gptq& form : {Gptq{}, Gptq{.bits = 8}, Gptq{.group = 128, .act_order = true},
                           Gptq{.bits = 8, .act_order = true}}) {
    INFO(config_of(form));
    require_own_images(gptq(form), "0.mlp.up_proj.qweight", 32 * 1000 + 2);
    require_own_images(gptq(form), "1.mlp.down_proj.qzeros", 32 * 6 + 1);
    require_own_images(gptq(form), "1.self_attn.o_proj.scales", 16 * 100 + 8);
    // Of two or five groups one becomes another.
    if (form.act_order) require_own_images(gptq(form), "0.mlp.gate_proj.g_idx", 32 * 17);
  }
  require_own_images(awq(32), "0.mlp.up_proj.qweight", 32 * 1000 + 2);
  require_own_images(awq(32), "1.mlp.down_proj.qzeros", 32 * 6 + 1);
  require_own_images(awq(32), "1.self_attn.o_proj.scales", 16 * 100 + 8);
}

TEST_CASE("stored weights: the same tensors with zeros by another version have own images") {
  const TemporaryFolder kept;
  const ImageCache cache({.folder = kept.path()});
  std::vector<float> logits[2];
  for (const bool less_one : {false, true}) {
    StoredModel model = gptq({.less_one = true});
    model.quantization = config_of({.less_one = less_one});
    const TemporaryFolder folder;
    model.write(folder.path());
    const test::Start made = test::start(model.decoder, folder.path(), cache);
    CHECK(made.ops > 0);
    logits[less_one ? 1 : 0] = test::logits(model.decoder, made.images, 24);
  }
  CHECK(test::contents_of(kept.path()).size() == 2);
  CHECK_FALSE(test::same_bits(logits[0], logits[1]));
}

// Kept files hold what is made of these rows: where one of these hashes changes,
// kStoredRowsVersion does too.
TEST_CASE("stored weights: rows of GPTQ and AWQ are those of version 1") {
  REQUIRE(kStoredRowsVersion == 1);
  CHECK(hash_of_rows(gptq({})) == "25e90f0d602158276639bf6151788dc9");
  CHECK(hash_of_rows(gptq({.less_one = false})) == "25e90f0d602158276639bf6151788dc9");
  CHECK(hash_of_rows(gptq({.group = 128, .act_order = true})) ==
        "0e57ce0af0200810ce9489a2db784974");
  CHECK(hash_of_rows(gptq({.bits = 8})) == "d055ead0bb2a59be8b1b3397aa397a40");
  CHECK(hash_of_rows(gptq({.bits = 8, .act_order = true})) == "68a2562bf04f70e50804c1776947e918");
  CHECK(hash_of_rows(awq(64)) == "9669ce0e42fa5badebec64387fb616de");
}

TEST_CASE("stored weights: AWQ that cannot be read says why") {
  for (const auto& [config, text] : std::initializer_list<std::pair<const char*, const char*>>{
           {R"({"quant_method": "awq", "bits": 8, "group_size": 128})", "awq of 8 bits"},
           {R"({"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemv"})", "gemv"},
           {R"({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": false})",
            "without zero_point"},
           {R"({"quant_method": "gptq", "bits": 4, "group_size": 32})",
            "qweight` has the shape [288, 20], not [36, 160]"}}) {
    StoredModel model{stored_description(), R"({})", awq_writer(32)};
    model.quantization = config;
    says(refusal(model), text);
  }
}

TEST_CASE("stored weights: GPTQ that cannot be read says which tensor and why") {
  const auto wrong = [](const std::string& end, const auto& change, std::string_view text) {
    StoredModel model = gptq({.act_order = true});
    change(model.tensor(end));
    says(refusal(model), text);
  };
  wrong(
      "0.mlp.up_proj.qzeros", [](StoredTensor& t) { t.declared.name = "elsewhere"; },
      "model.layers.0.mlp.up_proj.qzeros` is missing");
  wrong(
      "0.mlp.up_proj.scales", [](StoredTensor& t) { t.declared.name = "elsewhere"; },
      "model.layers.0.mlp.up_proj.scales` is missing");
  wrong(
      "0.mlp.up_proj.qweight",
      [](StoredTensor& t) { std::swap(t.declared.shape[0], t.declared.shape[1]); },
      "0.mlp.up_proj.qweight` has the shape [288, 20], not [20, 288]");
  wrong(
      "0.mlp.up_proj.qweight", [](StoredTensor& t) { t.declared.type = TensorType::f32; },
      "0.mlp.up_proj.qweight` is F32, not I32");
  wrong(
      "0.mlp.up_proj.g_idx", [](StoredTensor& t) { t.bytes[4] = std::byte{5}; },
      "0.mlp.up_proj.g_idx` names group 5 of 5");
  wrong(
      "0.mlp.up_proj.scales",
      [](StoredTensor& t) {
        t.bytes[0] = std::byte{0};
        t.bytes[1] = std::byte{0x7c};
      },
      "0.mlp.up_proj.scales` holds a number that is no finite half");
  // Groups of sixteen in order of activity are more than a row's table has room for.
  says(refusal(gptq({.group = 16, .act_order = true})), "at least 32 a group");
  StoredModel unsaid = gptq({});
  unsaid.quantization = "null";
  says(refusal(unsaid), "qweight` is packed, but config.json");
  for (const auto& [config, text] : std::initializer_list<std::pair<const char*, const char*>>{
           {R"({"quant_method": "gptq", "bits": 3, "group_size": 128})", "3 bits"},
           {R"({"quant_method": "gptq", "bits": 4, "group_size": 128,
                "checkpoint_format": "marlin"})",
            "marlin"},
           {R"({"quant_method": "gptq", "bits": 4, "group_size": 0})", "group_size"},
           {R"({"quant_method": "gptq", "group_size": 128})", "`bits` is missing"}}) {
    StoredModel model = gptq({});
    model.quantization = config;
    says(refusal(model), text);
  }
}

}  // namespace tutti::models
