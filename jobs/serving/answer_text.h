// The text of one answer as its tokens come: whole characters, up to a stop text.
//
// A stop text may begin in one token and end in another, so what could be its beginning is held
// back until the next tokens tell. Threads: one at a time.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "jobs/tokenizers/tokenizer.h"

namespace tutti::serving {

class AnswerText {
 public:
  // `stop`: not empty texts.
  explicit AnswerText(std::vector<std::string> stop) : stop_(std::move(stop)) {}

  // Bytes that stop texts do not apply to: an echoed prompt. Before the first push.
  std::string echo(std::string_view bytes) { return characters_.push(bytes); }

  // What a token's bytes add to the text that may be shown; after a stop text, nothing.
  std::string push(std::string_view bytes);

  // What was held back, at the end of an answer that no stop text ended.
  std::string finish();

  bool stopped() const { return stopped_; }

 private:
  // How many bytes at the end of `held_` could begin a stop text.
  std::size_t bytes_in_doubt() const;

  std::vector<std::string> stop_;
  std::string held_;
  tokenizers::StreamDecoder characters_;
  bool stopped_ = false;
};

}  // namespace tutti::serving
