// What a tokenizer knows: tokens, merges, added tokens, and how text is cut.
//
// Built once (by the trainer or from tokenizer.json) and then immutable. Merging a pre-token takes
// the lowest-ranked pair first, the leftmost of equals: a scan over a few pairs for words, a heap
// for long pieces, so that a megabyte without a space costs n log n and not n^2.
//
// Threads: immutable once built; any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "jobs/tokenizers/pretokenizer.h"
#include "jobs/tokenizers/tokenizer.h"
#include "protocol/base/result.h"

namespace tutti::tokenizers {

inline constexpr TokenId kNoToken = 0xffffffff;

// (left, right) -> (rank, merged id): open addressing, because encoding looks up little else.
class MergeTable {
 public:
  struct Merge {
    std::uint32_t rank = kNoToken;  // kNoToken: these two do not merge
    TokenId merged = kNoToken;
  };

  void reserve(std::size_t merges);
  // The last insertion of a pair counts.
  void insert(TokenId left, TokenId right, Merge merge);
  Merge find(TokenId left, TokenId right) const {
    const std::uint64_t key = key_of(left, right);
    for (std::size_t i = home_of(key);; i = (i + 1) & (slots_.size() - 1)) {
      if (slots_[i].key == key) return slots_[i].merge;
      if (slots_[i].key == kEmpty) return {};
    }
  }

 private:
  static constexpr std::uint64_t kEmpty = ~std::uint64_t{0};
  struct Slot {
    std::uint64_t key = kEmpty;
    Merge merge;
  };

  static std::uint64_t key_of(TokenId left, TokenId right) {
    return std::uint64_t{left} << 32 | right;
  }
  std::size_t home_of(std::uint64_t key) const {
    return static_cast<std::size_t>((key * 0x9e3779b97f4a7c15ULL) >> 32) & (slots_.size() - 1);
  }

  std::vector<Slot> slots_ = std::vector<Slot>(2);
};

// A token found in the text before it is cut.
struct AddedToken {
  std::string content;
  TokenId id = 0;
  bool special = false;
  bool strips_left = false;   // takes the white space before it along
  bool strips_right = false;  // and after it
};

// Unicode's normalization forms.
enum class NormalForm : std::uint8_t { nfc, nfd, nfkc, nfkd };

class Model {
 public:
  // An ordinary token. Errors: corrupt (id taken by another, above kTokenIdMax).
  Result<> add_token(std::string bytes, TokenId id);
  // A token that no bytes merge into (its text is not of the byte alphabet): it can only be
  // decoded.
  Result<> add_unreachable_token(std::string content, TokenId id) {
    return place(std::move(content), id);
  }
  // Errors: corrupt (as above).
  Result<> add_added_token(AddedToken token);
  // The pair merges into the token that is their bytes joined; rank is the number of merges so far.
  // Errors: corrupt (one of the three is no token).
  Result<> add_merge(std::string_view left, std::string_view right);
  // After the last token and merge: what encoding needs.
  void finish();

  std::uint32_t vocabulary() const { return static_cast<std::uint32_t>(tokens_.size()); }
  std::string_view bytes(TokenId id) const {
    return id < tokens_.size() ? std::string_view(tokens_[id].bytes) : std::string_view();
  }
  bool is_token(TokenId id) const { return id < tokens_.size() && tokens_[id].known; }
  bool is_added(TokenId id) const { return id < tokens_.size() && tokens_[id].added; }
  bool is_special(TokenId id) const { return id < tokens_.size() && tokens_[id].special; }
  // An ordinary token by its bytes, an added one by its content.
  TokenId find(std::string_view bytes) const;

  struct MergePair {
    TokenId left = 0;
    TokenId right = 0;
  };
  std::span<const MergePair> merges() const { return merges_; }
  const std::vector<AddedToken>& added() const { return added_; }
  // Indices into added() of those whose content begins with `byte`, longest first.
  std::span<const std::uint32_t> added_with(unsigned char byte) const {
    return added_by_byte_[byte];
  }

  // Appends the tokens of one pre-token. Bytes that are no token are left out.
  void merge(std::string_view bytes, std::vector<TokenId>& out) const;

  PreTokenizerSettings pre_tokenizer;
  bool whole_pieces_first = false;       // a pre-token that is a token is that token, merges or not
  std::vector<NormalForm> normal_forms;  // text is brought into these first, one after the other
  std::vector<TokenId> prefix;           // put around a whole text, if the model wants it
  std::vector<TokenId> suffix;
  std::string source;  // the tokenizer.json that it was read from; empty: made here

 private:
  struct BytesHash {
    using is_transparent = void;
    std::size_t operator()(std::string_view bytes) const {
      return std::hash<std::string_view>{}(bytes);
    }
  };
  struct Token {
    std::string bytes;
    bool known = false;
    bool added = false;
    bool special = false;
  };

  Result<> place(std::string bytes, TokenId id);
  void merge_short(std::span<TokenId> ids, std::vector<TokenId>& out) const;
  void merge_long(std::span<TokenId> ids, std::vector<TokenId>& out) const;

  std::vector<Token> tokens_;  // by id
  std::unordered_map<std::string, TokenId, BytesHash, std::equal_to<>> ids_;
  std::array<TokenId, 256> byte_ids_{};
  std::vector<MergePair> merges_;
  MergeTable table_;
  std::vector<AddedToken> added_;
  std::array<std::vector<std::uint32_t>, 256> added_by_byte_;
};

}  // namespace tutti::tokenizers
