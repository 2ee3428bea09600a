// Encodes text with one model: added tokens, pre-tokens, merges, and a cache of words seen.
//
// A text has few different words, so their merges are done once: the cache maps a pre-token's bytes
// to its tokens. It is cleared when it is full (32,768 words, about 4 MB).
//
// Ownership: refers to the model. Threads: one thread's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "jobs/tokenizers/model.h"
#include "jobs/tokenizers/tokenizer.h"

namespace tutti::tokenizers {

class Encoder {
 public:
  explicit Encoder(const Model& model);

  // Appends the tokens of `text`.
  void encode(std::string_view text, SpecialTokens special, std::vector<TokenId>& out);

 private:
  struct Word {
    std::uint64_t hash = 0;
    std::uint32_t text = 0;        // offset in texts_
    std::uint32_t text_bytes = 0;  // 0: an empty slot
    std::uint32_t tokens = 0;      // offset in tokens_
    std::uint32_t token_count = 0;
  };

  // Text without added tokens.
  void encode_plain(std::string_view text, std::vector<TokenId>& out);
  void encode_pieces(std::string_view text, std::vector<TokenId>& out);
  void encode_word(std::string_view word, std::vector<TokenId>& out);
  void clear_cache();

  const Model& model_;
  PreTokenizer pre_tokenizer_;
  std::vector<Word> words_;
  std::size_t words_used_ = 0;
  std::string texts_;
  std::vector<TokenId> tokens_;
};

}  // namespace tutti::tokenizers
