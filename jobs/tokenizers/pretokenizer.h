// Text -> pre-tokens: the pieces inside which bytes are merged.
//
// A chain of patterns, each cutting the pieces of the one before, as tokenizer.json's Sequence of
// Split and ByteLevel says. Bytes that are not UTF-8 form pieces of their own, so any bytes pass.
//
// Threads: the settings are immutable; a PreTokenizer is one thread's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "jobs/tokenizers/byte_text.h"
#include "jobs/tokenizers/pattern.h"

namespace tutti::tokenizers {

// What becomes of the text between matches.
enum class Gaps : std::uint8_t { kept, dropped };

struct SplitRule {
  Pattern pattern;
  Gaps gaps = Gaps::kept;
};

struct PreTokenizerSettings {
  std::vector<SplitRule> splits;
  // A space before pieces that do not begin with one is put in after this many splits; -1: never.
  int prefix_space_after = -1;
};

class PreTokenizer {
 public:
  explicit PreTokenizer(const PreTokenizerSettings& settings) : settings_(&settings) {
    for (const SplitRule& rule : settings.splits) matchers_.emplace_back(rule.pattern);
  }

  // Calls sink(std::string_view) for every piece in order. The views end with the call.
  template <class Sink>
  void split(std::string_view text, Sink&& sink) {
    while (!text.empty()) {
      const std::size_t valid = valid_utf8_prefix(text);
      if (valid > 0) split_from(0, text.substr(0, valid), sink);
      text.remove_prefix(valid);
      std::size_t invalid = 0;
      while (invalid < text.size()) {
        const Utf8Start start = utf8_start(text.substr(invalid));
        if (start.kind == Utf8Start::Kind::whole) break;
        invalid += start.bytes;
      }
      if (invalid > 0) sink(text.substr(0, invalid));
      text.remove_prefix(invalid);
    }
  }

 private:
  template <class Sink>
  void split_from(std::size_t rule, std::string_view piece, Sink& sink) {
    std::string with_space;
    if (static_cast<int>(rule) == settings_->prefix_space_after && !piece.starts_with(' ')) {
      with_space.append(" ").append(piece);
      piece = with_space;
    }
    if (rule == matchers_.size()) {
      sink(piece);
      return;
    }
    const Gaps gaps = settings_->splits[rule].gaps;
    for (std::size_t at = 0; at < piece.size();) {
      const Matcher::Span found = matchers_[rule].next(piece, at);
      if (found.begin > at && gaps == Gaps::kept) {
        split_from(rule + 1, piece.substr(at, found.begin - at), sink);
      }
      if (found.end > found.begin) {
        split_from(rule + 1, piece.substr(found.begin, found.end - found.begin), sink);
      }
      at = found.end;
    }
  }

  const PreTokenizerSettings* settings_;
  std::vector<Matcher> matchers_;
};

}  // namespace tutti::tokenizers
