// What a serving engine is asked and what it answers: plain values of its own, so that jobs need
// not know the wire.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "protocol/base/error.h"

namespace tutti::serving {

struct Request {
  std::uint64_t id = 0;               // the caller's; unique among those that live
  std::string prompt;                 // text; or
  std::vector<std::uint32_t> tokens;  // token ids, if not empty
  std::uint32_t tokens_max = 16;      // of the answer
  bool tokens_as_fit = false;         // tokens_max is cut to what the context leaves
  double temperature = 1.0;           // 0: greedy
  std::uint32_t top_k = 0;            // 0: off
  double top_p = 1.0;                 // 1: off
  std::uint64_t seed = 0;
  std::vector<std::string> stop;  // texts that end the answer; not part of it
  bool echo = false;              // the prompt is part of the answer
  bool logprobs = false;          // of each token of the answer
  bool ignores_end = false;       // an end-of-text token does not end the answer
};

// A token of the answer with its log-probability under the model, before temperature and cuts.
struct TokenChoice {
  std::uint32_t token = 0;
  std::string text;   // bytes of the token; may be a part of a character
  float logprob = 0;  // 0 for the first token of an echoed prompt, which nothing precedes

  bool operator==(const TokenChoice&) const = default;
};

enum class Finish : std::uint8_t { none, stop, length, cancelled, error };

// A piece of an answer. Each accepted request gets some, the last of which has `finish` set.
struct Output {
  std::uint64_t id = 0;
  std::string text;                   // whole characters only; never a part of a stop text
  std::vector<std::uint32_t> tokens;  // as drawn; an end-of-text token that ends it is among them
  std::vector<TokenChoice> chosen;    // if log-probabilities were asked for, one per token
  Finish finish = Finish::none;
  std::optional<Error> error;           // with Finish::error
  std::uint32_t prompt_tokens = 0;      // with finish
  std::uint32_t completion_tokens = 0;  // with finish
};

}  // namespace tutti::serving
