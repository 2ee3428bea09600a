// Files that others wrote: tokenizer.json, safetensors, config.json, token files.
#include <sys/mman.h>
#include <unistd.h>

#include <boost/json/parse.hpp>

#include <cstring>
#include <fstream>

#include "jobs/data/npy.h"
#include "jobs/models/description.h"
#include "jobs/models/safetensors.h"
#include "jobs/models/stored/stored_format.h"
#include "jobs/tokenizers/tokenizer.h"
#include "protocol/base/file.h"
#include "tests/fuzz/targets.h"
#include "tests/support/temporary_folder.h"

namespace tutti::fuzz {

namespace {

// In memory, as long as it lives.
class MemoryFile {
 public:
  explicit MemoryFile(std::string_view bytes) : file_(::memfd_create("fuzz", MFD_CLOEXEC)) {
    require(static_cast<bool>(file_), "no file in memory");
    require(::write(file_.get(), bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()),
            "no space in memory");
  }
  std::string path() const { return "/proc/self/fd/" + std::to_string(file_.get()); }

 private:
  FileDescriptor file_;
};

}  // namespace

bool take_tokenizer(std::string_view bytes) {
  const auto tokenizer = tokenizers::Tokenizer::from_json(bytes);
  if (!tokenizer) return false;
  const auto ids = tokenizer->encode("The quick brown fox, 1234\n\xc3\xa9");
  static_cast<void>(tokenizer->decode(ids));
  return true;
}

bool take_safetensors(std::string_view bytes) {
  const MemoryFile file(bytes);
  const auto reader = models::SafetensorsReader::open(file.path());
  if (!reader) return false;
  for (const std::string& name : reader->names()) {
    require(reader->find(name) != nullptr, "a tensor is listed and not there");
  }
  return true;
}

bool take_model_config(std::string_view bytes) {
  const auto description = models::parse_config(bytes);
  if (!description) return false;
  const auto twice = models::parse_config(models::to_config_json(*description));
  require(twice.ok() && *twice == *description, "the description of a model changes on its way");
  return true;
}

bool take_token_file(std::string_view bytes) {
  const MemoryFile file(bytes);
  const auto tokens = data::TokenFile::open(file.path());
  if (!tokens) return false;
  require(tokens->size() <= bytes.size(), "more tokens than bytes");
  std::vector<std::uint32_t> all(tokens->size());
  tokens->copy(0, all);
  const std::uint64_t outside = tokens->find_outside(0, tokens->size(), 100);
  require(outside == all.size() || all[outside] >= 100, "a token is outside, and is not");
  return true;
}

// Beside one file that an index may name.
bool take_tensor_index(std::string_view bytes) {
  static const test::TemporaryFolder folder;
  std::ofstream(folder.path() / "one.safetensors", std::ios::binary | std::ios::trunc)
      << safetensors_seeds()[0];
  std::ofstream(folder.path() / "model.safetensors.index.json", std::ios::binary | std::ios::trunc)
      << bytes;
  const auto reader = models::SafetensorsReader::open_folder(folder.path());
  if (!reader) return false;
  for (const std::string& name : reader->names())
    require(reader->find(name) != nullptr, "a tensor is listed and not there");
  return true;
}

std::vector<std::string> tensor_index_seeds() {
  return {R"({"metadata":{"total_size":8},"weight_map":{"a":"one.safetensors"}})",
          R"({"weight_map":{}})",
          R"({"weight_map":{"a":"one.safetensors","b":"one.safetensors"}})",
          R"({"weight_map":{"a":"../one.safetensors"}})",
          R"({"weight_map":{"a":".."}})",
          R"({"weight_map":{"a":3}})",
          R"({"weight_map":[]})"};
}

bool take_quantization(std::string_view bytes) {
  boost::system::error_code failed;
  const boost::json::value config =
      boost::json::parse(boost::json::string_view(bytes.data(), bytes.size()), failed);
  if (failed || !config.is_object()) return false;
  const auto format = models::read_stored_format(config.get_object());
  if (!format || format->kind == models::StoredFormat::Kind::plain) return false;
  static_cast<void>(models::format_of(*format));
  return !models::to_string(*format).empty();
}

std::vector<std::string> quantization_seeds() {
  return {R"({"quantization_config":{"quant_method":"fp8","weight_block_size":[128,128]}})",
          R"({"quantization_config":{"quant_method":"gptq","bits":4,"group_size":128,)"
          R"("desc_act":true,"sym":true,"checkpoint_format":"gptq"}})",
          R"({"quantization_config":{"quant_method":"gptq","bits":8,"group_size":-1}})",
          R"({"quantization_config":{"quant_method":"awq","bits":4,"group_size":64,)"
          R"("zero_point":true,"version":"gemm"}})",
          R"({"quantization_config":{"quant_method":"awq","bits":3,"group_size":[1,2]}})",
          R"({"quantization_config":{"quant_method":"fp8","weight_block_size":[0,-1]}})",
          R"({"quantization_config":[]})",
          "{}"};
}

std::vector<std::string> tokenizer_seeds() {
  return {R"({"version":"1.0","added_tokens":[{"id":3,"content":"<s>","single_word":false,)"
          R"("lstrip":false,"rstrip":false,"normalized":false,"special":true}],)"
          R"("normalizer":null,"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,)"
          R"("use_regex":true},"decoder":{"type":"ByteLevel"},"model":{"type":"BPE",)"
          R"("vocab":{"T":0,"h":1,"Th":2},"merges":["T h"]}})",
          R"({"version":"1.0","model":{"type":"Unigram","vocab":[]}})"};
}

std::vector<std::string> safetensors_seeds() {
  std::string json =
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  json.resize((json.size() + 7) / 8 * 8, ' ');
  std::uint64_t length = json.size();
  std::string out(8, '\0');
  std::memcpy(out.data(), &length, 8);
  // The second one ends before its tensor does.
  return {out + json + std::string(8, '\1'), out + json};
}

std::vector<std::string> model_config_seeds() {
  return {R"({"model_type":"llama","hidden_size":64,"intermediate_size":128,)"
          R"("num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,)"
          R"("vocab_size":512,"max_position_embeddings":128,"rms_norm_eps":1e-5,)"
          R"("hidden_act":"silu","rope_theta":10000.0,"tie_word_embeddings":false,)"
          R"("bos_token_id":1,"eos_token_id":[2,3],"rope_scaling":{"rope_type":"llama3",)"
          R"("factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,)"
          R"("original_max_position_embeddings":64}})",
          R"({"model_type":"gpt2","n_embd":64,"n_layer":2,"n_head":4,"vocab_size":512,)"
          R"("n_positions":128,"n_ctx":128,"layer_norm_epsilon":1e-5,)"
          R"("activation_function":"gelu_new","bos_token_id":0,"eos_token_id":0})",
          R"({"model_type":"llama","hidden_size":0,"num_attention_heads":0})",
          R"({"model_type":"another"})"};
}

std::vector<std::string> token_file_seeds() {
  const auto npy = [](const std::string& type, const std::string& shape, std::size_t bytes) {
    std::string header =
        "{'descr': '" + type + "', 'fortran_order': False, 'shape': " + shape + ", }";
    header.resize((10 + header.size() + 64) / 64 * 64 - 11, ' ');
    header += "\n";
    std::string out = "\x93NUMPY";
    out.append({1, 0, static_cast<char>(header.size()), static_cast<char>(header.size() >> 8)});
    return out + header + std::string(bytes, '\1');
  };
  return {npy("<u2", "(4,)", 8), npy("<i4", "(2,)", 8), npy("<u4", "(3,)", 8),
          npy("<u2", "(2, 2)", 8), npy("<f4", "(2,)", 8)};
}

}  // namespace tutti::fuzz
