// Files that others wrote: tokenizer.json and safetensors.
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "jobs/models/safetensors.h"
#include "jobs/tokenizers/tokenizer.h"
#include "tests/fuzz/targets.h"

namespace tutti::fuzz {

bool take_tokenizer(std::string_view bytes) {
  const auto tokenizer = tokenizers::Tokenizer::from_json(bytes);
  if (!tokenizer) return false;
  const auto ids = tokenizer->encode("The quick brown fox, 1234\n\xc3\xa9");
  static_cast<void>(tokenizer->decode(ids));
  return true;
}

bool take_safetensors(std::string_view bytes) {
  const int file = ::memfd_create("fuzz", MFD_CLOEXEC);
  require(file >= 0, "no file in memory");
  require(::write(file, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()),
          "no space in memory");
  bool taken = false;
  {
    const auto reader = models::SafetensorsReader::open("/proc/self/fd/" + std::to_string(file));
    taken = reader.ok();
    if (reader) {
      for (const std::string& name : reader->names()) {
        require(reader->find(name) != nullptr, "a tensor is listed and not there");
      }
    }
  }
  ::close(file);
  return taken;
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

}  // namespace tutti::fuzz
