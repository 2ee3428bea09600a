#include "jobs/tokenizers/tokenize_tool.h"

#include <fmt/core.h>

#include <cstdint>
#include <cstdio>
#include <string_view>
#include <vector>

#include "jobs/data/npy.h"
#include "jobs/tokenizers/encoder.h"
#include "jobs/tokenizers/tokenizer.h"
#include "jobs/tokenizers/tool_arguments.h"
#include "protocol/base/file.h"

namespace tutti::tokenizers {
namespace {

constexpr std::string_view kHelp =
    R"(usage: tutti tokenize --tokenizer tokenizer.json --out TOKENS.npy TEXTFILE...
       tutti tokenize --tokenizer tokenizer.json --decode TOKENS.npy [--out TEXTFILE]

Writes the tokens of the files, one after the other, as a one-dimensional .npy array (uint16 if all
ids fit, else uint32), or the text of such a file.

  --tokenizer FILE   Hugging Face's tokenizer.json, byte-level BPE
  --out FILE         where to write; text goes to standard output without it
  --decode FILE      a token file (uint16, uint32, int32) to turn into text, special tokens included
  --end-of-text      put an end-of-text token behind each file
  -o text|json       how to report
)";

constexpr std::uint64_t kTextBytesMax = std::uint64_t{16} << 30;

struct Options {
  std::string tokenizer;
  std::string out;
  std::string decode;
  std::string format = "text";
  std::vector<std::string> files;
  bool end_of_text = false;
};

Result<> decode(const Tokenizer& tokenizer, const Options& options) {
  const Result<data::TokenFile> file = data::TokenFile::open(options.decode);
  if (!file) return file.error();
  std::vector<std::uint32_t> ids(file->size());
  file->copy(0, ids);
  const std::uint64_t outside = file->find_outside(0, file->size(), tokenizer.vocabulary());
  if (outside < file->size()) {
    return Error{ErrorCode::invalid_argument,
                 fmt::format("{}: token {} at position {} is outside the vocabulary of {}",
                             options.decode, ids[outside], outside, tokenizer.vocabulary())};
  }
  const std::string text = tokenizer.decode(ids, SpecialTokens::as_text);
  if (!options.out.empty()) return write_file_atomically(options.out, text);
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) {
    return errno_error("cannot write the text", errno);
  }
  return {};
}

Result<std::size_t> encode(const Tokenizer& tokenizer, const Options& options) {
  std::vector<std::uint32_t> ids;
  Encoder encoder(tokenizer.model());
  for (const std::string& path : options.files) {
    const Result<std::string> text = read_file(path, kTextBytesMax);
    if (!text) return text.error();
    encoder.encode(*text, SpecialTokens::recognised, ids);
    if (!options.end_of_text) continue;
    if (!tokenizer.end_of_text()) {
      return Error{ErrorCode::invalid_argument, "the tokenizer has no end-of-text token"};
    }
    ids.push_back(*tokenizer.end_of_text());
  }
  if (Result<> written = data::write_token_file(options.out, ids); !written) return written.error();
  return ids.size();
}

}  // namespace

int run_tokenize_tool(std::span<const std::string> args) {
  Options options;
  ToolArguments arguments("tokenize", kHelp);
  arguments.option("--tokenizer", options.tokenizer);
  arguments.option("--out", options.out);
  arguments.option("--decode", options.decode);
  arguments.option("-o", options.format);
  arguments.flag("--end-of-text", options.end_of_text);
  arguments.positional(options.files);
  if (const auto exit = arguments.parse(args)) return *exit;
  const bool decodes = !options.decode.empty();
  if (options.format != "text" && options.format != "json") {
    return tool_failed("tokenize", "-o is text or json; --out names the file");
  }
  if (options.tokenizer.empty()) return tool_failed("tokenize", "--tokenizer is needed");
  if (decodes == !options.files.empty()) {
    return tool_failed("tokenize", "either text files or --decode is needed");
  }
  if (!decodes && options.out.empty()) return tool_failed("tokenize", "--out is needed");

  const Result<Tokenizer> tokenizer = Tokenizer::load(options.tokenizer);
  if (!tokenizer) return tool_failed("tokenize", tokenizer.error().message);
  if (decodes) {
    const Result<> decoded = decode(*tokenizer, options);
    return decoded ? kExitOk : tool_failed("tokenize", decoded.error().message);
  }
  const Result<std::size_t> encoded = encode(*tokenizer, options);
  if (!encoded) return tool_failed("tokenize", encoded.error().message);
  if (options.format == "json") {
    fmt::print("{{\"tokens\": {}}}\n", *encoded);
  } else {
    fmt::print("{} tokens in {}\n", *encoded, options.out);
  }
  return kExitOk;
}

}  // namespace tutti::tokenizers
