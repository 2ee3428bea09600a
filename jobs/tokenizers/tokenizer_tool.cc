#include "jobs/tokenizers/tokenizer_tool.h"

#include <fmt/core.h>

#include <cstdint>
#include <string_view>
#include <vector>

#include "jobs/tokenizers/tool_arguments.h"
#include "jobs/tokenizers/trainer.h"
#include "protocol/base/file.h"

namespace tutti::tokenizers {
namespace {

constexpr std::string_view kHelp =
    R"(usage: tutti tokenizer train --vocabulary N --out tokenizer.json TEXTFILE...

Learns a byte-level BPE tokenizer, the same from the same bytes. Ids: special tokens, the 256 bytes,
then the merges.

  --vocabulary N     tokens, special ones and the 256 bytes included
  --out FILE         where to write it, in Hugging Face's format
  --special TEXT     a special token; may be repeated (default: <|endoftext|>)
  -o text|json       how to report
)";

constexpr std::uint64_t kTextBytesMax = std::uint64_t{16} << 30;

}  // namespace

int run_tokenizer_tool(std::span<const std::string> args) {
  TrainerOptions options;
  std::vector<std::string> special;
  std::vector<std::string> files;
  std::string out;
  std::string format = "text";
  ToolArguments arguments("tokenizer", kHelp);
  arguments.option("--vocabulary", options.vocabulary);
  arguments.option("--out", out);
  arguments.option("--special", special);
  arguments.option("-o", format);
  arguments.positional(files);
  if (const auto exit = arguments.parse(args)) return *exit;
  if (files.empty() || files[0] != "train") {
    return tool_failed("tokenizer", "the only verb is train; --help shows the usage");
  }
  files.erase(files.begin());
  if (format != "text" && format != "json") return tool_failed("tokenizer", "-o is text or json");
  if (options.vocabulary == 0) return tool_failed("tokenizer", "--vocabulary is needed");
  if (out.empty()) return tool_failed("tokenizer", "--out is needed");
  if (files.empty()) return tool_failed("tokenizer", "a text file is needed");
  if (!special.empty()) options.special = special;

  std::vector<std::string> texts;
  for (const std::string& file : files) {
    Result<std::string> text = read_file(file, kTextBytesMax);
    if (!text) return tool_failed("tokenizer", text.error().message);
    texts.push_back(std::move(*text));
  }
  const std::vector<std::string_view> views(texts.begin(), texts.end());
  const Result<Tokenizer> tokenizer = train_tokenizer(views, options);
  if (!tokenizer) return tool_failed("tokenizer", tokenizer.error().message);
  const Result<> written = write_file_atomically(out, tokenizer->to_json());
  if (!written) return tool_failed("tokenizer", written.error().message);
  if (format == "json") {
    fmt::print("{{\"vocabulary\": {}}}\n", tokenizer->vocabulary());
  } else {
    fmt::print("{} tokens in {}\n", tokenizer->vocabulary(), out);
  }
  return kExitOk;
}

}  // namespace tutti::tokenizers
