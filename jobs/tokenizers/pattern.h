// Cuts text into pieces by a regular expression: what matches, and what lies between matches.
//
// Patterns of tokenizer.json need Unicode classes and look-ahead, hence PCRE2, compiled to machine
// code where it can be. Ownership: a Pattern is shared and immutable; a Matcher is one thread's.
// Errors: invalid_argument (the pattern does not compile; the message says where).
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>
#include <utility>

#include "protocol/base/result.h"

namespace tutti::tokenizers {

// GPT-2's (Radford et al. 2019): contractions, words and numbers with one leading space,
// punctuation, white space.
inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

class Pattern {
 public:
  static Result<Pattern> compile(std::string_view expression);

 private:
  friend class Matcher;
  struct Code;
  explicit Pattern(std::shared_ptr<const Code> code) : code_(std::move(code)) {}

  std::shared_ptr<const Code> code_;
};

class Matcher {
 public:
  explicit Matcher(const Pattern& pattern);
  Matcher(Matcher&&) noexcept;
  ~Matcher();

  struct Span {
    std::size_t begin = 0;
    std::size_t end = 0;
  };

  // The next non-empty match in `text` (valid UTF-8) at or after `from`; begin == text.size() if
  // there is none. A pattern that runs into PCRE2's limits finds none.
  Span next(std::string_view text, std::size_t from);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tutti::tokenizers
