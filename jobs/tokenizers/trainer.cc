#include "jobs/tokenizers/trainer.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <memory>
#include <numeric>
#include <queue>
#include <unordered_map>
#include <utility>

#include "jobs/tokenizers/model.h"

namespace tutti::tokenizers {
namespace {

using PairKey = std::uint64_t;

PairKey key_of(TokenId left, TokenId right) { return std::uint64_t{left} << 32 | right; }

struct PairHash {
  std::size_t operator()(PairKey key) const {
    return static_cast<std::size_t>((key * 0x9e3779b97f4a7c15ULL) >> 20);
  }
};

// A pre-token as tokens; begin and length in one long array.
struct Word {
  std::size_t begin = 0;
  std::size_t length = 0;
  std::int64_t count = 0;
};

struct PairState {
  std::int64_t count = 0;
  std::vector<std::uint32_t> words;  // that had it when it was noted; perhaps no longer
  bool merged = false;
};

struct Candidate {
  std::int64_t count = 0;
  PairKey pair = 0;

  // The queue's top is the largest: most frequent, then lower ids.
  bool operator<(const Candidate& other) const {
    return count != other.count ? count < other.count : pair > other.pair;
  }
};

class Trainer {
 public:
  explicit Trainer(const TrainerOptions& options) : options_(options) {}

  Result<Tokenizer> train(std::span<const std::string_view> texts);

 private:
  void count_words(std::span<const std::string_view> texts, const PreTokenizerSettings& settings);
  void note_pairs();
  void propose(PairKey pair);
  // The id of the two joined, which another merge may have made before.
  TokenId join(PairKey pair);
  void merge_in(std::uint32_t word_index, PairKey pair, TokenId merged);
  void change(PairKey pair, std::int64_t by, std::uint32_t word);

  const TrainerOptions& options_;
  std::vector<std::string> token_bytes_;
  std::unordered_map<std::string, TokenId> ids_;  // of what merging makes: bytes and pairs
  std::array<TokenId, 256> byte_ids_{};
  std::vector<Word> words_;
  std::vector<TokenId> symbols_;
  std::unordered_map<PairKey, PairState, PairHash> pairs_;
  std::priority_queue<Candidate> queue_;
  std::vector<PairKey> grown_;  // pairs that gained in the current merge
  std::vector<PairKey> merges_;
};

// Bytes get their ids in the order of their characters, as in files that others make.
std::array<unsigned char, 256> bytes_by_character() {
  std::array<unsigned char, 256> bytes;
  std::iota(bytes.begin(), bytes.end(), static_cast<unsigned char>(0));
  std::sort(bytes.begin(), bytes.end(),
            [](unsigned char a, unsigned char b) { return byte_character(a) < byte_character(b); });
  return bytes;
}

void Trainer::count_words(std::span<const std::string_view> texts,
                          const PreTokenizerSettings& settings) {
  std::unordered_map<std::string_view, std::uint32_t> seen;
  PreTokenizer pre_tokenizer(settings);
  for (const std::string_view text : texts) {
    pre_tokenizer.split(text, [&](std::string_view piece) {
      const auto [at, inserted] =
          seen.try_emplace(piece, static_cast<std::uint32_t>(words_.size()));
      if (inserted) {
        words_.push_back({symbols_.size(), piece.size(), 0});
        for (const char byte : piece) {
          symbols_.push_back(byte_ids_[static_cast<unsigned char>(byte)]);
        }
      }
      ++words_[at->second].count;
    });
  }
}

void Trainer::note_pairs() {
  for (std::uint32_t i = 0; i < words_.size(); ++i) {
    const Word& word = words_[i];
    for (std::size_t at = word.begin; at + 1 < word.begin + word.length; ++at) {
      change(key_of(symbols_[at], symbols_[at + 1]), word.count, i);
    }
  }
  grown_.clear();
  for (const auto& [pair, state] : pairs_) queue_.push({state.count, pair});
}

void Trainer::change(PairKey pair, std::int64_t by, std::uint32_t word) {
  PairState& state = pairs_[pair];
  state.count += by;
  if (by < 0) return;
  if (state.words.empty() || state.words.back() != word) state.words.push_back(word);
  grown_.push_back(pair);
}

TokenId Trainer::join(PairKey pair) {
  std::string bytes = token_bytes_[pair >> 32] + token_bytes_[pair & 0xffffffff];
  const auto [at, inserted] = ids_.try_emplace(bytes, static_cast<TokenId>(token_bytes_.size()));
  if (inserted) token_bytes_.push_back(std::move(bytes));
  return at->second;
}

void Trainer::merge_in(std::uint32_t word_index, PairKey pair, TokenId merged) {
  const auto left = static_cast<TokenId>(pair >> 32);
  const auto right = static_cast<TokenId>(pair);
  Word& word = words_[word_index];
  TokenId* symbols = symbols_.data() + word.begin;
  std::size_t kept = 0;
  for (std::size_t at = 0; at < word.length;) {
    if (at + 1 == word.length || symbols[at] != left || symbols[at + 1] != right) {
      symbols[kept++] = symbols[at++];
      continue;
    }
    if (kept > 0) {
      change(key_of(symbols[kept - 1], left), -word.count, word_index);
      change(key_of(symbols[kept - 1], merged), word.count, word_index);
    }
    if (at + 2 < word.length) {
      change(key_of(right, symbols[at + 2]), -word.count, word_index);
      change(key_of(merged, symbols[at + 2]), word.count, word_index);
    }
    symbols[kept++] = merged;
    at += 2;
  }
  word.length = kept;
}

Result<Tokenizer> Trainer::train(std::span<const std::string_view> texts) {
  const std::size_t vocabulary_min = options_.special.size() + 256;
  if (options_.vocabulary < vocabulary_min) {
    return Error{ErrorCode::invalid_argument,
                 fmt::format("a vocabulary of {} is too small: {} special tokens and 256 bytes "
                             "need {}",
                             options_.vocabulary, options_.special.size(), vocabulary_min)};
  }
  for (const std::string& special : options_.special) token_bytes_.push_back(special);
  for (const unsigned char byte : bytes_by_character()) {
    byte_ids_[byte] = static_cast<TokenId>(token_bytes_.size());
    token_bytes_.emplace_back(1, static_cast<char>(byte));
    ids_.emplace(token_bytes_.back(), byte_ids_[byte]);
  }
  Model model;
  const Result<Pattern> pattern = Pattern::compile(kGpt2Pattern);
  if (!pattern) return pattern.error();
  model.pre_tokenizer.splits.push_back({*pattern, Gaps::kept});
  count_words(texts, model.pre_tokenizer);
  if (words_.empty()) return Error{ErrorCode::invalid_argument, "the text is empty"};
  note_pairs();

  while (token_bytes_.size() < options_.vocabulary && !queue_.empty()) {
    const Candidate best = queue_.top();
    queue_.pop();
    PairState& state = pairs_[best.pair];
    if (state.count <= 0) continue;
    if (state.count != best.count) {
      queue_.push({state.count, best.pair});
      continue;
    }
    const TokenId merged = join(best.pair);
    if (!std::exchange(state.merged, true)) merges_.push_back(best.pair);
    const std::vector<std::uint32_t> touched = std::exchange(state.words, {});
    for (const std::uint32_t word : touched) merge_in(word, best.pair, merged);
    pairs_[best.pair].count = 0;
    std::sort(grown_.begin(), grown_.end());
    grown_.erase(std::unique(grown_.begin(), grown_.end()), grown_.end());
    for (const PairKey pair : grown_) queue_.push({pairs_[pair].count, pair});
    grown_.clear();
  }
  if (token_bytes_.size() < options_.vocabulary) {
    return Error{ErrorCode::invalid_argument,
                 fmt::format("a vocabulary of {} is larger than the text allows: it has pairs for "
                             "{} tokens; use more text or a smaller vocabulary",
                             options_.vocabulary, token_bytes_.size())};
  }

  for (TokenId id = 0; id < token_bytes_.size(); ++id) {
    const bool special = id < options_.special.size();
    Result<> added =
        special ? model.add_added_token({.content = token_bytes_[id], .id = id, .special = true})
                : model.add_token(token_bytes_[id], id);
    if (!added) return added.error();
  }
  for (const PairKey pair : merges_) {
    Result<> added = model.add_merge(token_bytes_[pair >> 32], token_bytes_[pair & 0xffffffff]);
    if (!added) return added.error();
  }
  model.finish();
  return Tokenizer(std::make_shared<const Model>(std::move(model)));
}

}  // namespace

Result<Tokenizer> train_tokenizer(std::span<const std::string_view> texts,
                                  const TrainerOptions& options) {
  return Trainer(options).train(texts);
}

}  // namespace tutti::tokenizers
