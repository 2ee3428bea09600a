// What the gateway and a serving rank tell each other: requests with sampling settings in, text as
// it is made out.
//
// The link is a transport endpoint of its own (the rank binds, CURVE), so that requests never queue
// behind scheduling. Every Generate is answered by one or more Generated, the last of which has
// `finish` set: one answer or one error (I18).
#pragma once

#include <boost/describe/class.hpp>

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace tutti::wire {

struct Generate {
  std::uint64_t request = 0;          // chosen by the gateway, unique on this link
  std::string prompt;                 // text; or
  std::vector<std::uint32_t> tokens;  // token ids, if not empty
  std::uint32_t tokens_max = 16;
  bool tokens_as_fit = false;  // tokens_max is cut to what the context leaves
  double temperature = 1.0;    // 0: greedy
  std::uint32_t top_k = 0;     // 0: off
  double top_p = 1.0;          // 1: off
  std::uint64_t seed = 0;
  std::vector<std::string> stop;  // texts that end the answer; not part of it
  bool echo = false;              // the prompt is part of the answer
  std::uint32_t logprobs = 0;  // log-probabilities of the chosen token and this many best; 0: none

  bool operator==(const Generate&) const = default;
};
BOOST_DESCRIBE_STRUCT(Generate, (),
                      (request, prompt, tokens, tokens_max, tokens_as_fit, temperature, top_k,
                       top_p, seed, stop, echo, logprobs))

struct CancelGenerate {
  std::uint64_t request = 0;

  bool operator==(const CancelGenerate&) const = default;
};
BOOST_DESCRIBE_STRUCT(CancelGenerate, (), (request))

struct TokenChoice {
  std::uint32_t token = 0;
  std::string text;  // bytes of the token; may be a part of a character
  float logprob = 0;

  bool operator==(const TokenChoice&) const = default;
};
BOOST_DESCRIBE_STRUCT(TokenChoice, (), (token, text, logprob))

struct Generated {
  std::uint64_t request = 0;
  std::string text;  // whole characters only
  std::vector<std::uint32_t> tokens;
  std::vector<TokenChoice> chosen;  // if log-probabilities were asked for, one per token
  std::string finish;               // empty: goes on; stop, length, cancelled, error
  std::string error;                // for error: one line; for error_code see ErrorCode names
  std::string error_code;
  std::uint32_t prompt_tokens = 0;      // with finish
  std::uint32_t completion_tokens = 0;  // with finish

  bool operator==(const Generated&) const = default;
};
BOOST_DESCRIBE_STRUCT(Generated, (),
                      (request, text, tokens, chosen, finish, error, error_code, prompt_tokens,
                       completion_tokens))

using ToServer = std::variant<Generate, CancelGenerate>;
using FromServer = std::variant<Generated>;

}  // namespace tutti::wire
