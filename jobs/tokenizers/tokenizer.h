// Byte-level BPE: text <-> token ids, read from and written to Hugging Face's tokenizer.json.
//
// Text is cut into pre-tokens by a pattern (words with their leading space, numbers, punctuation);
// inside a pre-token the bytes are merged pairwise, lowest rank first, as long as a learned merge
// applies (Sennrich et al. 2016; bytes: Radford et al. 2019). Special tokens (<|endoftext|>) are
// found before all that. Any bytes encode, and decode to themselves.
//
// Ownership: a value; cheap to move. Threads: const members from any thread (each Encoder belongs
// to one).
// Errors: corrupt (not JSON, a merge of unknown tokens), unsupported (a part of tokenizer.json that
// this build does not have: named), invalid_argument (invalid UTF-8 is no error: bytes outside the
// pattern form pre-tokens of their own).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/base/result.h"

namespace tutti::tokenizers {

using TokenId = std::uint32_t;

// Ids above this are refused: no model has them, and a table by id must not grow by a typo.
inline constexpr TokenId kTokenIdMax = 1U << 24;

// Whether texts of special tokens in the input become those tokens, or are text like any other
// (untrusted input).
enum class SpecialTokens : std::uint8_t { recognised, as_text };

class Model;

class Tokenizer {
 public:
  static Result<Tokenizer> load(const std::string& path);
  static Result<Tokenizer> from_json(std::string_view json);
  explicit Tokenizer(std::shared_ptr<const Model> model);

  // tokenizer.json, readable by Hugging Face's tokenizers; from_json gives back an equal tokenizer.
  std::string to_json() const;

  // One more than the highest id.
  std::uint32_t vocabulary() const;

  std::vector<TokenId> encode(std::string_view text,
                              SpecialTokens special = SpecialTokens::recognised) const;

  // The text as a model wants a whole one, with what the tokenizer's template puts around it (a
  // begin-of-text token, say). Special tokens are recognised.
  std::vector<TokenId> encode_whole(std::string_view text) const;

  // The bytes of the tokens; ids outside the vocabulary give nothing. `as_text` keeps special
  // tokens' texts, `recognised` leaves them out.
  std::string decode(std::span<const TokenId> ids,
                     SpecialTokens special = SpecialTokens::recognised) const;

  // The bytes of one token, which may be a part of a character; a special token's is its text.
  std::string_view bytes(TokenId id) const;
  bool is_special(TokenId id) const;
  std::optional<TokenId> id_of(std::string_view bytes) const;

  // <|endoftext|> and its kin (<|end_of_text|>, <|im_end|>, </s>), if there is one.
  std::optional<TokenId> end_of_text() const;

  const Model& model() const { return *model_; }

 private:
  std::shared_ptr<const Model> model_;
};

// Turns tokens into text as they come: whole UTF-8 characters only; bytes of an unfinished one wait
// for the next token. Bytes that can never become a character come out as U+FFFD.
class StreamDecoder {
 public:
  // What the token adds; often empty in the middle of a character.
  std::string push(std::string_view token_bytes);
  // What still waits, as U+FFFD.
  std::string finish();

 private:
  std::string pending_;
};

}  // namespace tutti::tokenizers
