#include "jobs/tokenizers/tokenizer.h"

#include <array>
#include <utility>

#include "jobs/tokenizers/byte_text.h"
#include "jobs/tokenizers/encoder.h"
#include "jobs/tokenizers/model.h"
#include "jobs/tokenizers/tokenizer_json.h"
#include "protocol/base/file.h"

namespace tutti::tokenizers {
namespace {

// Names under which families keep the token that ends a text, most common first.
constexpr std::array<std::string_view, 6> kEndOfTextNames = {
    "<|endoftext|>", "<|end_of_text|>", "</s>", "<|im_end|>", "<eos>", "<|eot_id|>"};

}  // namespace

Tokenizer::Tokenizer(std::shared_ptr<const Model> model) : model_(std::move(model)) {}

Result<Tokenizer> Tokenizer::load(const std::string& path) {
  const Result<std::string> json = read_file(path);
  if (!json) return json.error();
  Result<Tokenizer> tokenizer = from_json(*json);
  if (!tokenizer) return Error(tokenizer.error()).with_context(path);
  return tokenizer;
}

Result<Tokenizer> Tokenizer::from_json(std::string_view json) {
  Result<Model> model = model_from_json(json);
  if (!model) return model.error();
  return Tokenizer(std::make_shared<const Model>(std::move(*model)));
}

std::string Tokenizer::to_json() const { return model_to_json(*model_); }

std::uint32_t Tokenizer::vocabulary() const { return model_->vocabulary(); }

std::vector<TokenId> Tokenizer::encode(std::string_view text, SpecialTokens special) const {
  std::vector<TokenId> ids;
  Encoder(*model_).encode(text, special, ids);
  return ids;
}

std::vector<TokenId> Tokenizer::encode_whole(std::string_view text) const {
  std::vector<TokenId> ids = model_->prefix;
  Encoder(*model_).encode(text, SpecialTokens::recognised, ids);
  ids.insert(ids.end(), model_->suffix.begin(), model_->suffix.end());
  return ids;
}

std::string Tokenizer::decode(std::span<const TokenId> ids, SpecialTokens special) const {
  std::string text;
  for (const TokenId id : ids) {
    if (special == SpecialTokens::recognised && is_special(id)) continue;
    text.append(bytes(id));
  }
  return text;
}

std::string_view Tokenizer::bytes(TokenId id) const { return model_->bytes(id); }

bool Tokenizer::is_special(TokenId id) const { return model_->is_special(id); }

std::optional<TokenId> Tokenizer::id_of(std::string_view bytes) const {
  const TokenId id = model_->find(bytes);
  return id == kNoToken ? std::nullopt : std::optional(id);
}

std::optional<TokenId> Tokenizer::end_of_text() const {
  for (const std::string_view name : kEndOfTextNames) {
    const auto id = id_of(name);
    if (id && is_special(*id)) return id;
  }
  return std::nullopt;
}

std::string StreamDecoder::push(std::string_view token_bytes) {
  pending_.append(token_bytes);
  // A character is at most four bytes, so only the last three can be an unfinished one.
  std::size_t whole = pending_.size() < 3 ? 0 : pending_.size() - 3;
  for (; whole < pending_.size(); ++whole) {
    const std::string_view rest = std::string_view(pending_).substr(whole);
    if (utf8_start(rest).kind == Utf8Start::Kind::unfinished) break;
  }
  std::string text = replace_invalid_utf8(std::string_view(pending_).substr(0, whole));
  pending_.erase(0, whole);
  return text;
}

std::string StreamDecoder::finish() {
  std::string text = replace_invalid_utf8(pending_);
  pending_.clear();
  return text;
}

}  // namespace tutti::tokenizers
