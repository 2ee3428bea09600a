#include "jobs/data/text.h"

#include <fmt/core.h>

#include <filesystem>
#include <string_view>
#include <utility>

#include "jobs/data/npy.h"
#include "jobs/tokenizers/encoder.h"
#include "jobs/tokenizers/tokenizer.h"
#include "jobs/tokenizers/trainer.h"
#include "protocol/base/file.h"

namespace tutti::data {
namespace {

using tokenizers::Tokenizer;

// Text is held whole while it is tokenized; more than this belongs into token files.
constexpr std::uint64_t kTextBytesMax = std::uint64_t{16} << 30;

Result<std::vector<std::string>> read_texts(const std::vector<std::string>& paths) {
  if (paths.empty()) return Error{ErrorCode::invalid_argument, "no text file is given"};
  std::vector<std::string> texts;
  std::uint64_t left = kTextBytesMax;
  for (const std::string& path : paths) {
    Result<std::string> text = read_file(path, left);
    if (!text) return text.error();
    if (text->empty()) return Error{ErrorCode::invalid_argument, path + " is empty"};
    left -= text->size();
    texts.push_back(std::move(*text));
  }
  return texts;
}

Result<Tokenizer> train(const std::vector<std::string>& texts, std::uint32_t vocabulary) {
  const std::vector<std::string_view> views(texts.begin(), texts.end());
  tokenizers::TrainerOptions options;
  options.vocabulary = vocabulary;
  return tokenizers::train_tokenizer(views, options);
}

// The tokenizer that is in the folder, put there first if need be.
Result<Tokenizer> tokenizer_in(const std::string& path, const TextOptions& options,
                               const std::vector<std::string>& texts) {
  if (std::filesystem::exists(path)) return Tokenizer::load(path);
  Result<Tokenizer> tokenizer = options.tokenizer.empty() ? train(texts, options.vocabulary)
                                                          : Tokenizer::load(options.tokenizer);
  if (!tokenizer) return tokenizer;
  if (Result<> written = write_file_atomically(path, tokenizer->to_json()); !written) {
    return written.error();
  }
  return tokenizer;
}

}  // namespace

Result<TokenizedText> tokenize_text(const TextOptions& options) {
  const std::filesystem::path folder(options.folder);
  const TokenizedText made{.tokens = (folder / "tokens.npy").string(),
                           .tokenizer = (folder / "tokenizer.json").string()};
  if (std::filesystem::exists(made.tokens) && std::filesystem::exists(made.tokenizer)) return made;
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return errno_error("cannot make " + folder.string(), error.value());
  const Result<std::vector<std::string>> texts = read_texts(options.text);
  if (!texts) return texts.error();
  const Result<Tokenizer> tokenizer = tokenizer_in(made.tokenizer, options, *texts);
  if (!tokenizer) return tokenizer.error();
  if (tokenizer->vocabulary() > options.vocabulary) {
    return Error{ErrorCode::invalid_argument,
                 fmt::format("the tokenizer has {} tokens, the model a vocabulary of {}",
                             tokenizer->vocabulary(), options.vocabulary)};
  }
  std::vector<std::uint32_t> ids;
  tokenizers::Encoder encoder(tokenizer->model());
  const auto end_of_text = tokenizer->end_of_text();
  for (const std::string& text : *texts) {
    encoder.encode(text, tokenizers::SpecialTokens::recognised, ids);
    if (end_of_text) ids.push_back(*end_of_text);
  }
  if (Result<> written = write_token_file(made.tokens, ids); !written) return written.error();
  return made;
}

}  // namespace tutti::data
